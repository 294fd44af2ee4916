// Keeps the page up to date: the button, the state as it changes, what is
// scored, and how long the channel is fresh. Without it the page is as true as
// when it was loaded.
"use strict";

const progress = document.getElementById("progress");
const button = document.querySelector("#sync button");
let ahead = 0; // of this machine's clock the agent's is, in milliseconds
let shown = document.getElementById("state").dataset.state + document.querySelector("h1").textContent;

function say(text) { progress.textContent = text; }

// make returns a new element.
function make(name, attributes, ...content) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes ?? {})) e.setAttribute(k, v);
  e.append(...content);
  return e;
}

function number(n) { return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f"); }

// dress adds to fresh content what only a script can do.
function dress() {
  ahead = Date.parse(document.getElementById("main").dataset.now) - Date.now();
  for (const code of document.querySelectorAll("code.digest")) {
    const copy = make("button", { type: "button", class: "digest", title: `${code.title} (copy)`, "aria-label": `Copy ${code.title}` }, code.textContent);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.title);
        say(`Copied ${code.title}`);
      } catch {
        say(code.title);
      }
    });
    code.replaceWith(copy);
  }
  chart();
  clock();
}

// refresh fetches the page again and puts its content in the place of ours;
// what was said last, and where the keyboard is, stay.
let refreshing = Promise.resolve();
function refresh() {
  return refreshing = refreshing.then(async () => {
    const answer = await fetch("/", { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const at = document.activeElement?.closest("main") ? document.activeElement.textContent : null;
    document.querySelector("h1").replaceWith(document.adoptNode(next.querySelector("h1")));
    next.getElementById("progress").replaceWith(progress);
    document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
    document.title = next.title;
    shown = document.getElementById("state").dataset.state + document.querySelector("h1").textContent;
    dress();
    if (at) [...document.querySelectorAll("main button, main a")].find((e) => e.textContent === at)?.focus();
  }).catch((error) => say(`The agent does not answer: ${error.message}`));
}

// outcome says what came of a sync.
function outcome(report) {
  const back = report.fallback && report.live ? ` Release ${report.live.number}, the one before, is in use again.` : "";
  return report.result === "installed" ? (back ? `The release in use was revoked.${back}` : `Release ${report.number} is in use now.`)
    : report.result === "current" ? "The newest release is in use already."
    : report.result === "pinned" ? `Not installed: ${report.number ? `release ${report.number}` : "another release"} was found, and an operator pinned release ${report.live.number}.`
    : report.result ? `Sync ${report.result}: ${report.detail}.${back}` : report.detail;
}

// phase says how far a sync is. What is told often, the bytes, is not said aloud.
function phase(sync) {
  const place = document.getElementById("bytes");
  place.hidden = sync.phase !== "fetch";
  if (sync.phase === "fetch") {
    const bar = place.querySelector("progress");
    [bar.max, bar.value] = [sync.total, sync.done];
    place.querySelector("span").textContent = `${number(sync.done)} of ${number(sync.total)} bytes`;
  }
  const text = {
    started: "A sync is under way …", mirror: `Asking ${sync.source} …`, channel: "Judging what the channel says …",
    fetch: "Fetching the release …", verify: "Verifying the release …", install: "Installing the release …",
  }[sync.phase];
  if (text && progress.textContent !== text) say(text);
}

let busy = false;
document.getElementById("sync").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  busy = true;
  button.setAttribute("aria-disabled", "true");
  say("Asking for the newest release …");
  let said;
  try {
    const answer = await fetch("/api/models/sync", { method: "POST", headers: { Accept: "application/json" } });
    const report = await answer.json();
    said = outcome(report);
  } catch (error) {
    said = `The agent does not answer: ${error.message}`;
  }
  await refresh();
  say(said);
  button.removeAttribute("aria-disabled");
  busy = false;
});

// The chart: one column for each two seconds, the newest at the right.
const columns = 90;
const step = 2000;
let past = []; // {rows, benign, anomalies}
let now = { rows: 0, benign: 0, anomalies: 0 };

function scored(e) {
  now.rows += e.rows;
  now.benign += e.classes.benign ?? 0;
  now.anomalies += e.anomalies;
  const sum = document.getElementById("scores-sum");
  if (!sum) return;
  const [rows, odd] = sum.querySelectorAll("b");
  rows.textContent = number(e.total.rows);
  odd.textContent = number(e.total.anomalies);
  const classes = Object.entries(e.total.classes).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  document.getElementById("scores").replaceChildren(...classes.map(([name, n]) => make("li", null,
    make("span", null, name), make("progress", { max: classes[0][1], value: n, "aria-label": name }), make("span", null, number(n)))));
}

function rect(part, x, y, height) {
  const r = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [k, v] of Object.entries({ class: part, x, y, width: 4, height })) r.setAttribute(k, v);
  return r;
}

function chart() {
  const live = document.getElementById("live");
  if (!live) return;
  const sum = past.reduce((n, c) => n + c.rows, 0);
  if (!sum) {
    live.replaceChildren(make("p", { class: "empty" }, "None in the last three minutes. They are drawn here as they come."));
    return;
  }
  const most = Math.max(1, ...past.map((c) => c.rows));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${columns * 5 + 10} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Records scored in the last three minutes: ${sum}, at most ${most} in two seconds`);
  past.forEach((c, i) => {
    if (!c.rows) return;
    const x = 5 + (columns - past.length + i) * 5;
    const all = 88 * c.rows / most, benign = 88 * c.benign / most, odd = 88 * c.anomalies / most;
    svg.append(rect("benign", x, 94 - benign, benign), rect("attacks", x, 94 - all, all - benign));
    if (odd) svg.append(rect("odd", x, 95, Math.max(1, Math.min(4, odd))));
  });
  const key = (part, text) => make("span", null, make("i", { class: part }), text);
  live.replaceChildren(svg, make("p", null, key("attacks", "attacks"), key("benign", "benign"), key("odd", "some unlike ordinary traffic"),
    make("span", null, `last three minutes, highest column ${number(most)} in two seconds`)));
}

setInterval(() => {
  past.push(now);
  past = past.slice(-columns);
  now = { rows: 0, benign: 0, anomalies: 0 };
  if (!document.hidden) chart();
}, step);

function clock() {
  const meter = document.getElementById("fresh");
  if (!meter) return;
  const expires = Date.parse(meter.dataset.expires), issued = Date.parse(meter.dataset.issued);
  const left = expires - Date.now() - ahead;
  const minutes = Math.floor(left / 60000);
  meter.value = Math.max(0, Math.min(100, 100 * left / (expires - issued)));
  const text = left <= 0 ? "expired" : minutes < 120 ? `${minutes} min left` : minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h left` : `${Math.floor(minutes / 1440)} days left`;
  const place = document.getElementById("left");
  if (place.textContent !== text) place.textContent = text;
}
setInterval(clock, 5000);
dress();

const events = new EventSource("/events");
events.addEventListener("scores", (event) => scored(JSON.parse(event.data)));
events.addEventListener("status", (event) => {
  const status = JSON.parse(event.data);
  const title = status.state + (status.release?.in_use ? `${status.release.product} release ${status.release.number}` : "No release in use");
  if (title !== shown) refresh();
});
events.addEventListener("sync", (event) => {
  const sync = JSON.parse(event.data);
  if (sync.phase !== "finished") phase(sync);
  else if (!busy) refresh().then(() => say(outcome(sync)));
});
