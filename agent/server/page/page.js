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
  clock();
}

// refresh fetches the page again and puts its content in the place of ours;
// what was said last, what is unfolded, and where the keyboard is, stay.
let refreshing = Promise.resolve();
function refresh() {
  return refreshing = refreshing.then(async () => {
    const answer = await fetch("/", { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const at = document.activeElement?.closest("main") ? document.activeElement.textContent : null;
    document.querySelector("h1").replaceWith(document.adoptNode(next.querySelector("h1")));
    next.getElementById("progress").replaceWith(progress);
    for (const open of document.querySelectorAll("details[open]")) next.getElementById(open.id)?.setAttribute("open", "");
    document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
    document.title = next.title;
    shown = document.getElementById("state").dataset.state + document.querySelector("h1").textContent;
    dress();
    if (at) [...document.querySelectorAll("main button, main a, main summary")].find((e) => e.textContent === at)?.focus();
  }).catch((error) => say(`The agent does not answer: ${error.message}`));
}

// outcome says what came of a sync.
function outcome(report) {
  const back = report.fallback && report.live ? ` Release ${report.live.number}, the one before, is in use again.` : "";
  return report.result === "installed" ? (back ? `The release in use was revoked.${back}` : `Release ${report.number} is in use now.`)
    : report.result === "current" ? "The newest release is in use already."
    : report.result === "pinned" ? `Not installed: ${report.number ? `release ${report.number}` : "another release"} was found, and an operator pinned release ${report.live.number}.`
    : !report.result ? report.detail
    : `Sync ${report.detail.startsWith(`${report.result}: `) ? "" : `${report.result}: `}${report.detail}.${back}`;
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

// What was scored: the server draws it. Only what changes is replaced, so that the
// table stays open and the keyboard where it is.
let drawing = false;
async function draw() {
  if (drawing || document.hidden || !document.getElementById("live")) return;
  drawing = true;
  try {
    const answer = await fetch("/scores");
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["scores-sum", "live", "minutes", "since"]) {
      const [old, fresh] = [document.getElementById(id), next.getElementById(id)];
      if (old && fresh && old.outerHTML !== fresh.outerHTML) old.replaceWith(document.adoptNode(fresh));
    }
    const numbers = document.getElementById("numbers");
    if (numbers) numbers.hidden = next.getElementById("numbers")?.hidden ?? true;
  } catch {
    // The stream of events says it when the agent is gone.
  } finally {
    drawing = false;
  }
}
setInterval(() => { if (document.getElementById("live")?.dataset.rows !== "0") draw(); }, 10000);

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
events.addEventListener("scores", draw);
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
