"use strict";
// Draws the charts that the page holds. The figures' own files stand in where scripts do not run, and in print.
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 40rem)");
const touch = window.matchMedia("(pointer: coarse)");

function dataOf(chart) {
  // Many cells leave no room for numbers on a phone; a touch still says them.
  const crowded = (trace) => trace.type === "heatmap" && narrow.matches && trace.x.length > 5;
  return chart.data.map((trace) => (crowded(trace) ? { ...trace, texttemplate: "" } : { ...trace }));
}

function layoutOf(chart, width) {
  const style = getComputedStyle(document.body);
  const named = chart.layout.showlegend === false ? 0 : chart.data.filter((trace) => trace.showlegend).length;
  return {
    ...structuredClone(chart.layout),
    font: { color: style.color, family: style.fontFamily, size: narrow.matches ? 11 : 13 },
    hoverlabel: { ...chart.layout.hoverlabel, font: { size: 13 } },
    width,
    height: chart.layout.height + (narrow.matches ? 12 * named : 0),
    dragmode: touch.matches ? false : "zoom", // a finger scrolls the page
  };
}

function draw() {
  for (const [name, chart] of Object.entries(charts)) {
    const place = document.getElementById("plot-" + name);
    const width = place.clientWidth; // 0 in print, where the files stand in
    if (width) Plotly.react(place, dataOf(chart), layoutOf(chart, width), { displayModeBar: false });
  }
}

document.documentElement.classList.add("js");
draw();
dark.addEventListener("change", draw);
window.matchMedia("print").addEventListener("change", draw); // the window may have changed meanwhile
let drawnAt = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === drawnAt) return; // a phone's address bar comes and goes
  drawnAt = window.innerWidth;
  window.requestAnimationFrame(draw);
});
