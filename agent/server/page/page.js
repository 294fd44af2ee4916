// Keeps the page up to date: the button, the state as it changes, counts of
// what is scored, and how long the channel is fresh.
"use strict";

const progress = document.getElementById("progress");
const button = document.querySelector("#sync button");
let shown = document.getElementById("state").dataset.state + release(document);

function release(root) { return root.querySelector("h1").textContent; }

// refresh fetches the page again and puts its content in the place of ours.
// What was counted, and said of the last sync, is only here.
async function refresh() {
  const answer = await fetch("/", { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const said = progress.textContent;
  document.querySelector("h1").replaceWith(document.adoptNode(next.querySelector("h1")));
  next.getElementById("progress").replaceWith(progress);
  document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
  progress.textContent = said;
  document.title = next.title;
  draw();
  clock();
}

document.getElementById("sync").addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  progress.textContent = "Asking for the newest release …";
  try {
    const answer = await fetch("/api/models/sync", { method: "POST" });
    const report = await answer.json();
    progress.textContent = report.success
      ? (report.result === "installed" ? `Release ${report.number} is in use now.` : "The newest release is in use already.")
      : report.detail;
  } catch (error) {
    progress.textContent = `The agent does not answer: ${error.message}`;
  }
  button.disabled = false;
  await refresh();
});

const totals = new Map();
let rows = 0, anomalies = 0;

function count(scores) {
  rows += scores.rows;
  anomalies += scores.anomalies;
  for (const [name, n] of Object.entries(scores.classes)) totals.set(name, (totals.get(name) ?? 0) + n);
  draw();
}

function draw() {
  const list = document.getElementById("scores");
  if (!list || rows === 0) return;
  document.getElementById("scores-none").hidden = true;
  const sum = document.getElementById("scores-sum");
  sum.hidden = false;
  sum.textContent = `${rows} records, ${anomalies} of them unlike ordinary traffic`;
  const most = Math.max(...totals.values());
  list.replaceChildren(...[...totals].sort((a, b) => b[1] - a[1]).map(([name, n]) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    label.textContent = name;
    const bar = document.createElement("progress");
    bar.max = most;
    bar.value = n;
    bar.setAttribute("aria-label", name);
    const number = document.createElement("span");
    number.textContent = n;
    item.append(label, bar, number);
    return item;
  }));
}

function clock() {
  for (const at of document.querySelectorAll("time.clock")) {
    const left = (Date.parse(at.dateTime) - Date.now()) / 60000;
    if (Number.isNaN(left)) continue;
    const text = left < 0 ? "expired" : left < 120 ? `${Math.floor(left)} minutes left` : `${Math.floor(left / 60)} hours left`;
    at.textContent = `${at.dateTime} (${text})`;
  }
}
clock();
setInterval(clock, 30000);

const events = new EventSource("/events");
events.addEventListener("scores", (event) => count(JSON.parse(event.data)));
events.addEventListener("status", (event) => {
  const status = JSON.parse(event.data);
  const now = status.state + (status.release ? `${status.release.product} release ${status.release.number}` : "No release in use");
  if (now !== shown) {
    shown = now;
    refresh();
  }
});
