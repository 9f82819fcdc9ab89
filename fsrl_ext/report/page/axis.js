// An axis of costs, as that of `fsrl-ext plot`: linear up to twice the limit and logarithmic above, if values
// reach five limits. Plotly has no such axis, so places are computed here, and ticks show the values.

const TALL = 5;

function costAxis(values, limit) {
  const finite = values.filter(Number.isFinite);
  const positive = finite.filter((x) => x > 0).sort((a, b) => a - b);
  const size = limit > 0 ? limit : positive.length ? positive[positive.length >> 1] : 1;
  const top = finite.reduce((a, b) => Math.max(a, b), limit > 0 ? limit : 0);
  const bottom = finite.reduce((a, b) => Math.min(a, b), 0);
  const tall = Math.max(top, -bottom) > TALL * size;
  const axis = tall ? tallAxis(2 * size) : { place: (x) => x, ticks: () => null, knee: null };
  const ends = [bottom, top].map(axis.place);
  const height = ends[1] - ends[0] || 1;
  return { ...axis, range: [ends[0] - 0.08 * height, ends[1] + 0.08 * height] };
}

function tallAxis(knee) {
  // The slope is 1 on both sides of the knee.
  const place = (x) =>
    x === null ? null : Math.abs(x) <= knee ? x : Math.sign(x) * knee * (1 + Math.log(Math.abs(x) / knee));
  const value = (y) => (Math.abs(y) <= knee ? y : Math.sign(y) * knee * Math.exp(Math.abs(y) / knee - 1));
  const ticks = (low, high) => {
    const chosen = new Set();
    const from = Math.max(low, -knee);
    const to = Math.min(high, knee);
    if (to > from) {
      const share = (to - from) / (high - low);
      evenTicks(from, to, Math.max(1, Math.round(5 * share))).forEach((x) => chosen.add(x));
    }
    const ends = [value(low), value(high)];
    for (const sign of [1, -1]) {
      const decades = [];
      for (let power = -6; power < 13; power += 1) {
        for (const digit of [1, 2, 5]) {
          const x = sign * digit * 10 ** power;
          if (Math.abs(x) > 1.3 * knee && x >= ends[0] && x <= ends[1]) decades.push(x);
        }
      }
      const every = Math.ceil(decades.length / 5);
      decades.filter((_, i) => i % every === 0).forEach((x) => chosen.add(x));
    }
    const all = [...chosen].sort((a, b) => a - b);
    return { values: all.map(place), texts: all.map(short) };
  };
  return { place, ticks, knee };
}

function evenTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i += 1) {
    ticks.push(Number((i * step).toPrecision(10)));
  }
  return ticks;
}

// A number as people read it: 768.5, 0.0123, 12,500.
function short(x) {
  if (x === null || !Number.isFinite(x)) return "-";
  const size = Math.abs(x);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return x.toPrecision(4);
  const digits = size >= 1000 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4;
  return Number(x.toFixed(digits)).toLocaleString("en-US", { maximumFractionDigits: 4 });
}
