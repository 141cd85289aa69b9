/* report.js - the page of `nimbus report`, inside of base.html; R = {title, version, date, files: [{name, kind, json}]} */
const METHODS = ["nimbus", "lut-nn", "stella-nera", "dense-start", "seed", "maddness", "random-start"];
const series = [];
function colour(name) {
  let i = METHODS.indexOf(name);
  if (i < 0) { if (!series.includes(name)) series.push(name); i = series.indexOf(name); }
  return `var(--c${i % 7})`;
}
const of = kind => R.files.filter(f => f.kind === kind);
const mean = v => v.reduce((a, b) => a + b, 0) / v.length;
const seconds = v => v == null ? "–" : v < 9.95 ? v.toFixed(1) + " s" : v < 600 ? v.toFixed(0) + " s" : (v / 60).toFixed(0) + " min";
const points = v => (v >= 0 ? "+" : "−") + Math.abs(100 * v).toFixed(2);
const known = v => v.filter(x => x != null);
/* "98.61 %" of several seeds with half of what lies between the largest and the least */
function several(values, name = percent) {
  const v = known(values);
  if (!v.length) return "–";
  const half = (Math.max(...v) - Math.min(...v)) / 2;
  return name(mean(v)) + (v.length > 1 ? ` <small>±${name === percent ? (100 * half).toFixed(2) : name(half)}</small>` : "");
}

/* Lines of [{name, points: [[x, y, tip]], low, high}]; x logarithmic or linear. */
function lines(list, o) {
  return w => {
    const h = 290, all = list.flatMap(s => s.points);
    const xs = all.map(p => p[0]), ys = all.map(p => p[1]).sort((a, b) => a - b);
    /* what lies far below the most would press all else together: it is drawn at the foot */
    const hi = Math.max(ys.at(-1), o.bar ?? -Infinity), lo = o.y0 != null ? o.y0 : Math.max(ys[0], hi - 4 * (hi - ys[ys.length >> 1]) - 1e-3), pad = Math.max((hi - lo) * .08, 1e-9);
    const y0 = o.y0 != null ? o.y0 : lo - pad, y1 = hi + pad;
    const raw = (y1 - y0) / 6, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw);
    const marks = [];
    for (let v = Math.ceil(y0 / step) * step; v <= y1; v += step) marks.push(v);
    const x0 = Math.min(...xs), x1 = Math.max(...xs);
    let f;
    if (o.log) f = frame(w, h, {x0: x0 / 1.1, x1: x1 * 1.1 + (x0 === x1), y0, y1, xticks: o.xticks || decades(x0 / 1.1, x1 * 1.1), xname: o.xname, yticks: marks, yname: o.yname, xtitle: o.xtitle, left: 54, gap: 44});
    else { /* the frame's logarithm undone */
      const to = v => Math.exp((v - x0) / ((x1 - x0) || 1));
      const steps = ticks(x1, Math.max(3, Math.round(w / 90))).filter(v => v >= x0);
      f = frame(w, h, {x0: 1, x1: Math.E, y0, y1, xticks: steps.map(to), xname: v => o.xname(Math.round(1e6 * (x0 + Math.log(v) * (x1 - x0))) / 1e6), yticks: marks, yname: o.yname, xtitle: o.xtitle, left: 54, gap: 30});
      const inner = f.x;
      f.x = v => inner(to(v));
    }
    const y = v => f.y(Math.max(v, y0));
    let body = f.body;
    if (o.bar != null) body += line(f.x(x0), y(o.bar), f.x(x1), y(o.bar), "goal");
    for (const s of list) {
      body += `<polyline points="${s.points.map(p => `${f.x(p[0])},${y(p[1])}`).join(" ")}" fill="none" stroke="${colour(s.name)}" stroke-width="${s.name === "nimbus" ? 3 : 1.8}" stroke-linejoin="round"/>`;
      for (const p of s.points)
        body += (p[3] != null && p[4] > p[3] ? `<line x1="${f.x(p[0])}" x2="${f.x(p[0])}" y1="${y(p[3])}" y2="${y(p[4])}" stroke="${colour(s.name)}" stroke-width="1.4"/>` : "") +
          `<circle cx="${f.x(p[0])}" cy="${y(p[1])}" r="${s.name === "nimbus" ? 3.4 : 2.6}" fill="${colour(s.name)}"><title>${esc(p[2])}</title></circle>`;
    }
    return svg(w, h, o.label, body);
  };
}

/* ---- comparisons */
const runs = of("compare").flatMap(f => f.json.runs);
const methods = METHODS.filter(m => runs.some(r => r.method === m));
/* Nets that differ by the seed in their name, "deep-0.net", and were converted with that seed, are one. */
const seedsOf = net => new Set(runs.filter(r => r.net === net).map(r => r.seed));
const nameOf = r => r.net.replace(/.*\//, "").replace(/\.net$/, "").replace(seedsOf(r.net).size === 1 ? new RegExp(`-${r.seed}$`) : /$^/, "");
const groups = []; /* by net */
for (const r of runs) {
  const key = [nameOf(r), r.data, r.valid_part, r.layers, r.v, r.levels, r.trees, r.bits, r.shift, r.rows, r.budget, r.limit].join(" ");
  let g = groups.find(x => x.key === key);
  if (!g) groups.push(g = {key, name: nameOf(r), bits: r.bits, target: r.target ?? .99, data: r.data, layers: r.layers, v: r.v, rows: r.rows, budget: r.budget, runs: []});
  g.runs.push(r);
}
groups.sort((a, b) => a.data < b.data ? -1 : a.data > b.data ? 1 : a.layers - b.layers || a.v - b.v);
const titled = g => esc(`${g.name}, ${g.data}, ${g.rows ? `${g.rows} rows, ` : ""}${g.layers} layers, V = ${g.v || "a channel"}, ${g.bits} bits`);
const seeds = n => n > 1 ? `mean of ${n} seeds, ` : "";
const done = (g, m) => g.runs.filter(r => r.method === m);

/* Mean over seeds of the points that all their curves have. */
function curve(list, x) {
  const n = Math.min(...list.map(r => r.curve.length)), out = [];
  for (let i = 0; i < n; i++) {
    const at = list.map(r => r.curve[r.curve.length - n + i]), y = at.map(p => p[2]);
    out.push([mean(at.map(p => p[x])), mean(y), `${list[0].method}: ${percent(mean(y))} after ${x ? seconds(mean(at.map(p => p[1]))) : mean(at.map(p => p[0])) + " epochs"}`]);
  }
  return out;
}

function compareCards() {
  let html = "";
  for (const g of groups) {
    const drawn = methods.filter(m => done(g, m).every(r => r.curve.length) && done(g, m).length);
    if (!drawn.length) continue;
    const bar = g.target * mean(g.runs.map(r => r.float_valid));
    const chart = (x, o) => lines(drawn.map(m => ({name: m, points: curve(done(g, m), x)})), {yname: v => (100 * v).toFixed(1) + " %", bar, ...o});
    html += card(titled(g), `Accuracy on held-out rows, ${seeds(Math.max(...drawn.map(m => done(g, m).length)))}against rows seen${g.budget ? ` (${g.budget} epoch${g.budget === 1 ? "" : "s"} for all)` : ""} and against time. The broken line is ${Math.round(1000 * g.target) / 10} % of the float net's; what is far below stands at the foot.`, drawn,
      [chart(0, {xname: String, xtitle: "epochs of rows seen", label: "accuracy against epochs"}),
       chart(1, {log: true, xname: v => seconds(v).replace(".0", ""), xtitle: "seconds of conversion", label: "accuracy against seconds"})], true);
  }
  for (const data of new Set(groups.map(g => g.data))) {
    const deep = groups.filter(g => g.data === data);
    const depths = new Set(deep.map(g => g.layers)).size;
    if (depths < 2 || depths < deep.length) continue; /* else nets of one depth would be joined by a line */
    const over = (pick, unit) => methods.map(m => ({name: m, points: deep.filter(g => known(done(g, m).map(pick)).length).map(g => {
      const v = known(done(g, m).map(pick));
      return [g.layers, mean(v), `${m}, ${g.layers} layers: ${unit(mean(v))}`, Math.min(...v), Math.max(...v)];
    })})).filter(s => s.points.length);
    const xticks = deep.map(g => g.layers);
    html += card(`${esc(data)}: depth`, "Test accuracy, and seconds of the whole conversion, by the number of converted layers; bars from the least to the largest of the seeds.", methods,
      [lines(over(r => r.test, percent), {log: true, xticks, xname: String, yname: v => (100 * v).toFixed(0) + " %", xtitle: "layers", label: "accuracy against depth"}),
       lines(over(r => r.seconds, seconds), {log: true, xticks, xname: String, y0: 0, yname: v => seconds(v).replace(".0", ""), xtitle: "layers", label: "seconds against depth"})], true);
  }
  if (groups.length)
    html += card("In figures", "Means over seeds, ± half of what lies between the largest and the least; time on this machine.", [],
      [table(["", "method", "seeds", "test", "points to float", "held out", "seconds", "to the line"], groups.flatMap(g => methods.filter(m => done(g, m).length).map((m, i) => {
        const list = done(g, m);
        return tr([i ? "" : titled(g), m, list.length, several(list.map(r => r.test)), points(mean(list.map(r => (r.test ?? NaN) - (r.float_test ?? NaN)))).replace("+NaN", "–").replace("−NaN", "–"),
          several(list.map(r => r.valid)), several(list.map(r => r.seconds), seconds), several(list.map(r => r.seconds_to_target), seconds)], m === "nimbus" ? "ours" : "");
      })))], true);
  return html;
}

/* ---- trainings and conversions */
function curveCard(f) {
  const c = f.json.curve || [];
  if (c.length < 2) return "";
  const pick = (i, name) => ({name, points: c.filter(p => p[i] != null).map(p => [p[0], p[i], `${name}, epoch ${p[0]}: ${i === 2 ? p[i].toFixed(4) : percent(p[i])}`])});
  const accuracy = [pick(3, "training rows"), pick(4, "held-out rows")].filter(s => s.points.length);
  const charts = accuracy.length ? [lines(accuracy, {xname: String, yname: v => (100 * v).toFixed(1) + " %", xtitle: "epoch", label: "accuracy by epoch"})] : [];
  charts.push(lines([pick(2, "loss")], {xname: String, yname: v => v.toPrecision(2), xtitle: "epoch", label: "loss by epoch"}));
  return card(`${esc(f.name)}: ${f.kind === "convert" ? "fine-tuning" : "training"}`, c[0][0] === 0 ? "Before the first epoch and after each." : "After every epoch.", [...accuracy.map(s => s.name), "loss"], charts, true);
}

function layersCard(f) {
  const list = (f.json.layers || []).filter(l => l.error != null);
  if (!list.length) return "";
  const top = Math.max(...list.map(l => l.error));
  const chart = w => {
    const row = 24, left = Math.min(170, Math.round(w * .34)), right = 60, h = list.length * row + 8;
    return svg(w, h, "squared error by layer", list.map((l, i) =>
      text(left - 8, i * row + 16, l.name, "end") + `<rect x="${left}" y="${i * row + 3}" width="${Math.max(1, l.error / top * (w - left - right))}" height="${row - 7}" rx="3" fill="var(--c0)"><title>${esc(l.name)}: ${l.error.toFixed(4)}</title></rect>` +
      text(left + l.error / top * (w - left - right) + 6, i * row + 16, l.error.toFixed(4), "start", "value")).join(""));
  };
  return card(`${esc(f.name)}: layers`, "Squared error of each layer against the float net right after its fit, as a share of the outputs' variance.", [], [chart,
    table(["layer", "codebooks", "leaves", "error", "seconds"], list.map(l => tr([esc(l.name), count(l.codebooks), 2 ** l.levels, l.error.toFixed(4), seconds(l.seconds)])))], true);
}

function accuracyCard(f) {
  const forms = f.kind === "convert" ? {float: f.json.float, converted: f.json.converted} : {"": f.json};
  const rows = Object.entries(forms).flatMap(([k, of]) => Object.entries(of || {}).filter(([, v]) => v && typeof v === "object" && "rows" in v)
    .map(([split, v]) => tr([k, esc(split), count(v.rows), percent(v.accuracy), v.loss == null ? "–" : v.loss.toFixed(4)], k === "converted" ? "ours" : "")));
  return rows.length ? card(`${esc(f.name)}: accuracy`, f.json.seconds ? `${f.kind === "convert" ? "Converted" : "Trained"} in ${seconds(f.json.seconds)}.` : "", [], [table(["", "rows of", "rows", "accuracy", "loss"], rows)], true) : "";
}

/* ---- accuracy against time: programs and peers of several benches */
function frontierCard() {
  const benches = of("bench").filter(f => (f.json.results || []).some(r => r.accuracy != null));
  if (!benches.length) return "";
  const batches = [...new Set(benches.flatMap(f => f.json.batches))].sort((a, b) => a - b), shown = [...new Set([batches.includes(256) ? 256 : batches.at(-1), batches[0]])];
  const names = [...new Set(benches.flatMap(f => f.json.results.filter(r => !r.skipped && r.accuracy != null).map(r => r.name)))];
  const chart = batch => lines(names.map(name => ({name, points: benches.flatMap(f => f.json.results.filter(r => r.name === name && !r.skipped && r.accuracy != null && r["ns_per_row_" + batch])
    .map(r => [r["ns_per_row_" + batch].median, r.accuracy, `${f.name}, ${name}: ${ns(r["ns_per_row_" + batch].median)} a row, ${percent(r.accuracy)}`])).sort((a, b) => a[0] - b[0])})).filter(s => s.points.length),
    {log: true, xname: tick, yname: v => (100 * v).toFixed(1) + " %", xtitle: `time a row, ${batch === 1 ? "one row" : batch + " rows"} a call`, label: "accuracy against time a row"});
  return card("Accuracy against time a row", "Every point is a net, measured by <code>nimbus bench</code>; left and high is better.", names, shown.map(chart), true);
}

document.title = R.title + " · nimbus";
const single = R.files.filter(f => f.kind === "train" || f.kind === "convert");
document.getElementById("page").innerHTML =
  `<header><h1>${esc(R.title)}</h1><p>nimbus ${esc(R.version)} · ${esc(R.date)} · ${R.files.map(f => esc(f.name)).join(", ")}</p></header>` +
  `<div class="cards">${compareCards()}${frontierCard()}${single.map(f => accuracyCard(f) + curveCard(f) + layersCard(f)).join("")}</div>`;
