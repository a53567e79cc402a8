"use strict";
// Draws the charts that the page holds. The figures' own files stand in where scripts do not run, and in print.
const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 40rem)");
const touch = window.matchMedia("(pointer: coarse)");
const places = Object.keys(charts).map((name) => [document.getElementById("plot-" + name), charts[name]]);

function look(chart) {
  const style = getComputedStyle(document.body);
  const entries = chart.data.filter((one) => one.showlegend).length;
  const legend = chart.layout.showlegend === false ? 0 : entries;
  return {
    "font.color": style.color,
    "font.family": style.fontFamily,
    "font.size": narrow.matches ? 11 : 13,
    "hoverlabel.font.size": 13,
    "height": chart.layout.height + (narrow.matches ? 12 * legend : 0),
    "dragmode": touch.matches ? false : "zoom", // a finger scrolls the page
  };
}

function shown(chart) { // many cells leave no room for numbers on a phone; a touch still says them
  return chart.data.map((one) => (narrow.matches && one.x.length > 6 ? "" : one.texttemplate));
}

function settle(place, chart) {
  if (chart.data[0].type === "heatmap") Plotly.restyle(place, { texttemplate: shown(chart) });
  return Plotly.relayout(place, look(chart));
}

document.documentElement.classList.add("js");
for (const [place, chart] of places) {
  Plotly.newPlot(place, chart.data, chart.layout, { responsive: true, displayModeBar: false })
    .then(() => settle(place, chart));
}
for (const change of [dark, narrow]) {
  change.addEventListener("change", () => places.forEach(([place, chart]) => settle(place, chart)));
}
