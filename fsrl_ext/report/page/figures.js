// The figures, as traces and layouts of Plotly. Texts of runs pass through plain(), since Plotly reads some
// markup in names.

const data = JSON.parse(document.getElementById("data").textContent);

const state = {
  hidden: { task: new Set(), series: new Set() },
  episodes: "training",
  seeds: false,
  linear: false,
  which: "best",
};

const CONFIG = {
  responsive: true,
  displaylogo: false,
  displayModeBar: "hover",
  // Plotly's own choice can have buttons that send the data of a figure to a server.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return { ink: colour("ink"), soft: colour("soft"), grid: colour("grid"), card: colour("card"), line: colour("line") };
}

// Black lines of a light page are white in a dark one.
function ink(colour) {
  return colour === "#000000" ? theme().ink : colour;
}

function faded(colour, share) {
  const parts = [1, 3, 5].map((i) => parseInt(ink(colour).slice(i, i + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

function shown(groups) {
  return groups.filter((group) => !state.hidden.series.has(group.name));
}

function baseLayout(height) {
  const { ink: text, soft, card, line } = theme();
  return {
    height,
    autosize: true,
    margin: { l: 58, r: 12, t: 10, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: text, size: 12 }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: text },
    showlegend: false,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    shapes: [],
    annotations: [],
  };
}

function axis(title, more = {}) {
  const { grid, soft } = theme();
  return {
    title: { text: title, standoff: 6, font: { size: 12 } },
    gridcolor: grid,
    zerolinecolor: grid,
    tickfont: { color: soft, size: 11 },
    automargin: false,
    ...more,
  };
}

// The label of an upright line stands where there is room: left of a line in the right part.
function limitLine(value, along, label, yref = "y", leftwards = false) {
  const { ink: text } = theme();
  const across = along === "x" ? { xref: "paper", x0: 0, x1: 1, yref, y0: value, y1: value } : { xref: "x", x0: value, x1: value, yref: "paper", y0: 0, y1: 1 };
  const at = along === "x" ? { xref: "paper", x: 1, xanchor: "right", yref, y: value, yanchor: "bottom" } : { xref: "x", x: value, xanchor: leftwards ? "right" : "left", yref: "paper", y: 1, yanchor: "top" };
  return {
    shape: { type: "line", line: { color: text, width: 1.2, dash: "dot" }, ...across },
    note: { text: label, showarrow: false, font: { size: 11, color: text }, ...at },
  };
}

function withTicks(ticks) {
  return ticks === null ? {} : { tickmode: "array", tickvals: ticks.values, ticktext: ticks.texts };
}

// Lines over steps.

function curveTraces(group, kind, signal, scale, yaxis, name) {
  const style = data.styles[group.name];
  const curve = group.curves[kind][signal];
  const dashed = kind === "deterministic" && state.episodes === "both";
  const traces = [];
  const common = { x: curve.x, yaxis, type: "scatter", mode: "lines" };
  if (state.seeds) {
    for (const seed of group.seeds) {
      const own = seed[kind][signal];
      traces.push({
        x: own.x, y: own.y.map(scale.place), yaxis, type: "scatter", mode: own.x.length > 1 ? "lines" : "markers",
        line: { color: faded(style.colour, 0.4), width: 0.8 }, marker: { color: faded(style.colour, 0.6), size: 4 },
        customdata: own.y.map(short), name: `${plain(group.name)}, seed ${seed.seed}`, meta: "seed",
        hovertemplate: `%{customdata}`,
      });
    }
  } else if (curve.low && !dashed) {
    const edge = { ...common, line: { width: 0 }, hoverinfo: "skip", meta: "band" };
    traces.push({ ...edge, y: curve.low.map(scale.place) });
    traces.push({ ...edge, y: curve.high.map(scale.place), fill: "tonexty", fillcolor: faded(style.colour, 0.16) });
  }
  const few = curve.x.length <= 40;
  traces.push({
    ...common,
    y: curve.y.map(scale.place),
    mode: few ? "lines+markers" : "lines",
    marker: { color: ink(style.colour), size: 4 },
    line: { color: ink(style.colour), width: dashed ? 1.3 : 2, dash: dashed ? "4px,3px" : style.dash },
    customdata: curve.y.map((y, i) => short(y) + (curve.low && curve.low[i] !== null ? ` [${short(curve.low[i])}, ${short(curve.high[i])}]` : "")),
    name: plain(group.name) + (state.episodes === "both" ? (dashed ? ", selections" : ", training") : ""),
    meta: "mean",
    hovertemplate: `${name} %{customdata}`,
  });
  return traces;
}

function curvesFigure(place) {
  const panel = data.panels[place.dataset.panel];
  const groups = shown(panel.groups);
  const costs = panel.limits.length;
  const rows = 1 + costs;
  const kinds = state.episodes === "both" ? ["training", "deterministic"] : [state.episodes];
  const layout = baseLayout(90 + 165 * rows);
  layout.hovermode = "x unified";
  layout.xaxis = axis("environment steps", { anchor: rows > 1 ? `y${rows}` : "y", tickformat: "~s", hoverformat: ",d", rangemode: "tozero" });
  const traces = [];
  const axes = {};
  for (let row = 0; row < rows; row += 1) {
    const name = row ? `y${row + 1}` : "y";
    const holding = groups.filter((group) => row < group.curves.training.length);
    const means = holding.flatMap((group) => kinds.flatMap((kind) => group.curves[kind][row].y)).filter((y) => y !== null);
    const seeds = state.seeds
      ? holding.flatMap((group) => group.seeds.flatMap((seed) => kinds.flatMap((kind) => seed[kind][row].y)))
      : [];
    const limits = row ? panel.limits[row - 1] : [];
    let scale;
    if (row && !state.linear) {
      scale = costAxis([...means, ...seeds], limits[limits.length - 1] ?? null);
    } else {
      const all = [...means, ...seeds, ...limits, ...(row ? [0] : [])];
      const low = all.reduce((a, b) => Math.min(a, b), Infinity);
      const high = all.reduce((a, b) => Math.max(a, b), -Infinity);
      const margin = 0.1 * (high - low || Math.abs(high) || 1);
      scale = { place: (x) => x, ticks: () => null, knee: null, range: all.length ? [low - margin, high + margin] : [0, 1] };
    }
    axes[name] = scale;
    const gap = 0.05;
    const title = row ? panel.costs[row - 1] : "return";
    layout[`yaxis${row ? row + 1 : ""}`] = axis(title, {
      domain: [1 - (row + 1) / rows + (row + 1 < rows ? gap / 2 : 0), 1 - row / rows - (row ? gap / 2 : 0)],
      range: scale.range,
      ...withTicks(scale.ticks(...scale.range)),
    });
    if (scale.knee !== null) {
      const note = { text: "logarithmic above", showarrow: false, font: { size: 10, color: theme().soft }, xref: "paper", x: 0, xanchor: "left", yref: name, y: scale.place(scale.knee), yanchor: "bottom" };
      layout.annotations.push(note);
      layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref: name, y0: scale.place(scale.knee), y1: scale.place(scale.knee), line: { color: theme().soft, width: 0.6, dash: "dash" } });
    }
    for (const limit of limits) {
      const { shape, note } = limitLine(scale.place(limit), "x", `limit ${short(limit)}`, name);
      layout.shapes.push(shape);
      layout.annotations.push(note);
    }
    for (const group of holding) {
      for (const kind of kinds) traces.push(...curveTraces(group, kind, row, scale, name, title));
    }
  }
  return { traces, layout, axes };
}

// Return against cost.

function pointsFigure(place) {
  const panel = data.panels[place.dataset.panel];
  const groups = shown(panel.groups);
  const costs = Math.max(panel.limits.length, 1);
  const layout = baseLayout(60 + 300 * costs);
  layout.hovermode = "closest";
  const traces = [];
  const axes = {};
  for (let cost = 0; cost < costs; cost += 1) {
    const number = cost ? cost + 1 : "";
    const holding = groups.filter((group) => cost < group.final[state.which].costs.length);
    const limits = panel.limits[cost] ?? [];
    const all = holding.flatMap((group) => [...group.final[state.which].costs[cost], ...group.final[state.which].cost[cost]]);
    const limit = limits[limits.length - 1] ?? null;
    const scale = costAxis(all, limit);
    axes[`x${number}`] = scale;
    const title = (panel.costs[cost] ?? "cost") + (scale.knee === null ? "" : `, logarithmic above ${short(scale.knee)}`);
    const bottom = 1 - (cost + 1) / costs + (cost + 1 < costs ? 0.08 : 0);
    layout[`xaxis${number}`] = axis(title, { range: scale.range, anchor: `y${number}`, zeroline: false, ...withTicks(scale.ticks(...scale.range)) });
    layout[`yaxis${number}`] = axis("return", { domain: [bottom, 1 - cost / costs], anchor: `x${number}`, zeroline: false });
    const on = { xaxis: `x${number}`, yaxis: `y${number}`, type: "scatter", mode: "markers" };
    for (const x of limits) {
      const at = scale.place(x);
      const leftwards = at > 0.6 * scale.range[1] + 0.4 * scale.range[0];
      const { shape, note } = limitLine(at, "y", `limit ${short(x)}`, "y", leftwards);
      layout.shapes.push({ ...shape, xref: `x${number}`, yref: `y${number} domain` });
      layout.annotations.push({ ...note, xref: `x${number}`, yref: `y${number} domain` });
    }
    for (const group of holding) traces.push(...pointTraces(group, cost, scale, on));
  }
  return { traces, layout, axes };
}

function pointTraces(group, cost, scale, on) {
  const style = data.styles[group.name];
  const final = group.final[state.which];
  const colour = ink(style.colour);
  const name = plain(group.name);
  const hollow = (open) => (open ? `${style.symbol}-open` : style.symbol);
  const seeds = {
    ...on,
    x: final.costs[cost].map(scale.place),
    y: final.returns,
    name,
    meta: "seed",
    marker: { color: colour, size: 7, opacity: 0.6, symbol: final.feasible.map((x) => hollow(!x)), line: { width: 1.2, color: colour } },
    customdata: final.returns.map((y, i) => `seed ${group.seeds[i].seed}: return ${short(y)}, cost ${short(final.costs[cost][i])}, ${final.feasible[i] ? "feasible" : "infeasible"}`),
    hovertemplate: "%{fullData.name}<br>%{customdata}<extra></extra>",
  };
  if (final.returns.length < 2) return [{ ...seeds, marker: { ...seeds.marker, size: 13, opacity: 1 } }];
  const [x, xLow, xHigh] = final.cost[cost];
  const [y, yLow, yHigh] = final.return;
  const error = (low, middle, high) => ({ type: "data", symmetric: false, array: [high - middle], arrayminus: [middle - low], color: colour, thickness: 1.2, width: 3 });
  const ends = (value, low, high) => `${short(value)} [${short(low)}, ${short(high)}]`;
  const mean = {
    ...on,
    x: [scale.place(x)],
    y: [y],
    name,
    meta: "mean",
    error_x: error(scale.place(xLow), scale.place(x), scale.place(xHigh)),
    error_y: error(yLow, y, yHigh),
    marker: { color: colour, size: 13, symbol: hollow(!final.within), line: { width: 1.5, color: colour } },
    customdata: [`mean of ${final.returns.length} seeds: return ${ends(y, yLow, yHigh)}<br>cost ${ends(x, xLow, xHigh)}, ${final.within ? "within" : "above"} the limit`],
    hovertemplate: "<b>%{fullData.name}</b><br>%{customdata}<extra></extra>",
  };
  return [seeds, mean];
}

// Diagnostics. Their lines are told apart within a figure, not between policies.

const LINES = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"];

function diagnosticFigure(place) {
  const { panel, group, figure } = place.dataset;
  const drawn = data.diagnostics[panel][group][figure];
  const named = drawn.lines.length > 1;
  // Plotly's legend has columns of equal width.
  const entry = 48 + 6.4 * Math.max(...drawn.lines.map((line) => line.label.length));
  const columns = Math.max(1, Math.floor((place.clientWidth - 70) / entry));
  const below = named ? 56 + 19 * Math.ceil(drawn.lines.length / columns) : 44;
  const layout = baseLayout(200 + below);
  layout.hovermode = "x unified";
  layout.showlegend = named;
  layout.legend = { orientation: "h", x: 0, xanchor: "left", y: 0, yanchor: "bottom", yref: "container", font: { size: 11 }, traceorder: "normal" };
  layout.margin.b = below;
  layout.xaxis = axis("environment steps", { tickformat: "~s", hoverformat: ",d", rangemode: "tozero" });
  layout.yaxis = axis("", drawn.shares ? { tickformat: ".0%", range: [0, 1.02] } : {});
  const traces = [];
  const values = drawn.lines.flatMap((line) => [...line.low, ...line.high]).filter((y) => y !== null);
  drawn.lines.forEach((line, i) => {
    const colour = LINES[i % LINES.length];
    const common = { x: line.x, type: "scatter", mode: "lines", legendgroup: String(i) };
    if (drawn.shares) {
      traces.push({ ...common, y: line.y, stackgroup: "shares", name: line.label, line: { width: 0.5, color: colour }, fillcolor: faded(colour, 0.55), meta: "mean", hovertemplate: "%{y:.1%}" });
      return;
    }
    const edge = { ...common, line: { width: 0 }, hoverinfo: "skip", showlegend: false, meta: "band" };
    traces.push({ ...edge, y: line.low });
    traces.push({ ...edge, y: line.high, fill: "tonexty", fillcolor: faded(colour, 0.16) });
    traces.push({ ...common, y: line.y, name: line.label, line: { width: 1.6, color: colour }, meta: "mean", customdata: line.y.map((y, k) => `${short(y)} (${short(line.low[k])} to ${short(line.high[k])})`), hovertemplate: "%{customdata}" });
  });
  if (drawn.bound) {
    const high = values.reduce((a, b) => Math.max(a, b), 0);
    // A cap that is far above all values would flatten them, so the text alone names it.
    if (drawn.bound.value <= 3 * high) {
      const { shape, note } = limitLine(drawn.bound.value, "x", drawn.bound.label);
      layout.shapes.push(shape);
      layout.annotations.push(note);
    }
  }
  return { traces, layout, axes: {} };
}

const FIGURES = { curves: curvesFigure, points: pointsFigure, diagnostic: diagnosticFigure };
