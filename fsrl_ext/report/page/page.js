// Draws figures when they come into view, and draws them again when a filter, a control or the theme changes.

document.documentElement.classList.add("script");

const places = [...document.querySelectorAll(".plot")];
const drawn = new Map(); // Figures, and their axes that are logarithmic in part.
const near = new Set(); // Figures in view, or nearly.
const stale = new Set(); // Figures that must be drawn again when they come into view.

function draw(place) {
  const { traces, layout, axes } = FIGURES[place.dataset.kind](place);
  const first = !drawn.has(place);
  drawn.set(place, axes);
  Plotly.react(place, traces, layout, CONFIG);
  if (first) place.on("plotly_relayout", (change) => moveTicks(place, change));
}

// Ticks of an axis that is logarithmic in part are computed for what is shown of it.
function moveTicks(place, change) {
  const update = {};
  for (const [name, scale] of Object.entries(drawn.get(place))) {
    const key = `${name[0]}axis${name.slice(1)}`;
    const touched = Object.keys(change).some((x) => x.startsWith(`${key}.range`) || x.startsWith(`${key}.autorange`));
    const ticks = touched ? scale.ticks(...place.layout[key].range) : null;
    if (ticks === null) continue;
    update[`${key}.tickvals`] = ticks.values;
    update[`${key}.ticktext`] = ticks.texts;
  }
  if (Object.keys(update).length) Plotly.relayout(place, update);
}

const view = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) {
        near.delete(target);
        continue;
      }
      near.add(target);
      if (stale.delete(target) || !drawn.has(target)) draw(target);
    }
  },
  { rootMargin: "400px" },
);
places.forEach((place) => view.observe(place));

function drawAgain() {
  for (const place of drawn.keys()) {
    if (near.has(place) && place.offsetParent !== null) draw(place);
    else stale.add(place);
  }
}

function colourSwatches() {
  for (const swatch of document.querySelectorAll("[data-swatch]")) {
    swatch.style.background = ink(data.styles[swatch.dataset.swatch].colour);
  }
}

// Filters.

const chips = [...document.querySelectorAll("[data-filter]")];

function filter() {
  for (const chip of chips) {
    const { filter: kind, value } = chip.dataset;
    chip.setAttribute("aria-pressed", String(!state.hidden[kind].has(value)));
  }
  for (const element of document.querySelectorAll("[data-task], [data-series]")) {
    const { task, series } = element.dataset;
    element.hidden = state.hidden.task.has(task) || state.hidden.series.has(series);
  }
  drawAgain();
}

for (const chip of chips) {
  const { filter: kind, value } = chip.dataset;
  chip.addEventListener("click", () => {
    const hidden = state.hidden[kind];
    if (!hidden.delete(value)) hidden.add(value);
    filter();
  });
  chip.addEventListener("dblclick", () => {
    const others = chips.map((x) => x.dataset).filter((x) => x.filter === kind && x.value !== value);
    state.hidden[kind] = new Set(others.map((x) => x.value));
    filter();
  });
}

document.getElementById("show-all").addEventListener("click", () => {
  state.hidden.task.clear();
  state.hidden.series.clear();
  filter();
});

// Controls.

function control(id, name, read) {
  const element = document.getElementById(id);
  element.addEventListener("change", () => {
    state[name] = read(element);
    drawAgain();
  });
}
control("episodes", "episodes", (x) => x.value);
control("which", "which", (x) => x.value);
control("seeds", "seeds", (x) => x.checked);
control("linear", "linear", (x) => x.checked);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colourSwatches();
  drawAgain();
});
if (matchMedia("(max-width: 640px)").matches) document.querySelector(".filter").open = false;
colourSwatches();
