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

function layoutOf(chart) {
  const style = getComputedStyle(document.body);
  const named = chart.layout.showlegend === false ? 0 : chart.data.filter((trace) => trace.showlegend).length;
  return {
    ...structuredClone(chart.layout),
    font: { color: style.color, family: style.fontFamily, size: narrow.matches ? 11 : 13 },
    hoverlabel: { ...chart.layout.hoverlabel, font: { size: 13 } },
    height: chart.layout.height + (narrow.matches ? 12 * named : 0),
    dragmode: touch.matches ? false : "zoom", // a finger scrolls the page
  };
}

function draw() {
  for (const [name, chart] of Object.entries(charts)) {
    const place = document.getElementById("plot-" + name);
    Plotly.react(place, dataOf(chart), layoutOf(chart), { responsive: true, displayModeBar: false });
  }
}

document.documentElement.classList.add("js");
draw();
for (const change of [dark, narrow]) change.addEventListener("change", draw);
