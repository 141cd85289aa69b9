/* run_page.js - runs a page of the tool in as much of a browser as its scripts need, and prints what
 * it shows at three widths; fails where a script does, or where a chart has coordinates that are none
 *
 * usage: node run_page.js PAGE.html */
"use strict";
const html = require("fs").readFileSync(process.argv[2], "utf8");
const within = open => {
  const start = html.indexOf(open) + open.length;
  return html.slice(start, html.indexOf("</script>", start));
};
const page = {innerHTML: ""}, report = {textContent: within('id="report">')};
const boxes = () => [...page.innerHTML.matchAll(/data-chart="(\d+)"/g)].map(m => ({dataset: {chart: m[1]}, clientWidth: globalThis.innerWidth}));
let drawn = [];
globalThis.document = {title: "", getElementById: id => ({report, page})[id], querySelectorAll: () => drawn = boxes()};
let resized;
globalThis.addEventListener = (_, f) => resized = f;
globalThis.innerWidth = 360;
(0, eval)(within("<script>"));
console.log(document.title, page.innerHTML);
for (const width of [768, 1280, 360]) {
  globalThis.innerWidth = width;
  resized();
  for (const box of drawn) {
    if (/NaN|undefined|Infinity/.test(box.innerHTML)) throw new Error(`chart ${box.dataset.chart} at ${width}: ${box.innerHTML}`);
    console.log(box.innerHTML);
  }
}
