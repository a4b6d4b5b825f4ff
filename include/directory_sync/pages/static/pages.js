// Airflow's look, links that open in Airflow around the page, and the charts. The pages work without it, but for charts.
"use strict";

function outside() {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null; // another origin: the page is shown somewhere else than in Airflow
  }
}

function followTheme(airflow) {
  const html = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const around = airflow?.document.documentElement;
    const dark = around?.classList.contains("dark") || (!around?.classList.contains("light") && system.matches);
    html.dataset.theme = dark ? "dark" : "light";
    document.dispatchEvent(new Event("theme"));
  };
  apply();
  system.addEventListener("change", apply);
  if (airflow) {
    new MutationObserver(apply).observe(airflow.document.documentElement, { attributeFilter: ["class"] });
  }
}

// The tab's frame may not navigate the window around it; Airflow's router listens to its history instead.
function openInAirflow(airflow) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.airflow");
    if (link && airflow && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      airflow.history.pushState({ idx: (airflow.history.state?.idx ?? 0) + 1 }, "", link.href);
      airflow.dispatchEvent(new PopStateEvent("popstate", { state: airflow.history.state }));
    }
  });
}

const COLOURS = ["#2f6fdb", "#d9822b", "#2e9e6b", "#b3408f", "#7a5fd0", "#c0392b", "#3aa6b9", "#8a8d29", "#5f6b7a", "#e0678b"];
const LINES = new Set(["users", "groups"]);

function drawCharts() {
  const source = document.getElementById("series");
  if (!source || typeof Chart === "undefined") return;
  const series = JSON.parse(source.textContent);
  const style = getComputedStyle(document.documentElement);
  Chart.defaults.color = style.getPropertyValue("--text").trim();
  Chart.defaults.borderColor = style.getPropertyValue("--line").trim();
  Chart.defaults.animation = false;
  for (const canvas of document.querySelectorAll("canvas[data-chart]")) {
    Chart.getChart(canvas)?.destroy();
    const named = Object.entries(series[canvas.dataset.chart]);
    const shown = LINES.has(canvas.dataset.chart) ? named : named.filter(([, values]) => values.some(Boolean));
    const line = LINES.has(canvas.dataset.chart);
    new Chart(canvas, {
      type: line ? "line" : "bar",
      data: {
        labels: series.labels,
        datasets: shown.map(([label, data], at) => ({
          label: label.replaceAll("_", " "),
          data,
          borderColor: COLOURS[at % COLOURS.length],
          backgroundColor: COLOURS[at % COLOURS.length],
        })),
      },
      options: {
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        plugins: { legend: { display: !line, position: "bottom", labels: { boxWidth: 12 } } },
        scales: {
          x: { stacked: !line, ticks: { maxTicksLimit: 8, maxRotation: 0 } },
          y: { stacked: !line, beginAtZero: true, ticks: { precision: 0 } },
        },
      },
    });
    const newest = shown.map(([label, values]) => `${values.at(-1) ?? 0} ${label.replaceAll("_", " ")}`).join(", ");
    canvas.setAttribute("aria-label", `${canvas.closest("figure").querySelector("figcaption").textContent}; the newest run: ${newest || "none"}`);
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const airflow = outside();
  document.addEventListener("theme", drawCharts);
  followTheme(airflow);
  openInAirflow(airflow);
});
