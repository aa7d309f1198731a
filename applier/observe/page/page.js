// The live page: asks /status each second and /history each five, and draws what they say. Everything that comes from
// the servers is written as text, never as markup.

const STATUS_MILLISECONDS = 1000;
const HISTORY_MILLISECONDS = 5000;
const ANSWER_MILLISECONDS = 4000;
const STATES = {running: "good", starting: "warn", reconnecting: "warn", draining: "warn", stopped: "", failed: "bad"};
const CAUSES = {
  hot_key: ["a row that an earlier transaction holds", "wait"],
  no_primary_key: ["a table without a usable key", "wait"],
  barrier: ["changes that run alone (DDL, statements)", "wait"],
  lock_wait: ["a lock of somebody else on the target", "wait"],
  commit_turn: ["commit turn: an earlier one is not done", "wait"],
  execution: ["the target executing rows", "execute"],
  fsync: ["the target making commits durable", "commit"],
  network: ["network", "decode"],
  decoding: ["reading, decoding, scheduling", "decode"],
  idle: ["nothing to do", "idle"],
};
const PLAIN = new Set(["idle", "decoding", "commit_turn"]);  // whose detail says nothing more
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const number = (value) => (value == null ? "–" : whole.format(value));
const percent = (share) => `${Math.round(share * 100)} %`;

function rate(value) {
  if (value == null) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : number(value);
}

function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

// --- elements ------------------------------------------------------------------------------------------------------

function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;  // a screen reader is told of changes only
}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function draw(name, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function fillTable(id, rows, nothing) {
  const table = byId(id), columns = table.tHead.rows[0].cells.length;
  const made = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  if (!made.length) made.push(make("tr", {}, make("td", {colspan: columns}, nothing)));
  table.tBodies[0].replaceChildren(...made);
}

// --- the picture of the flow ---------------------------------------------------------------------------------------

const PIPE_Y = 70;
const STAGES = [["source", 10], ["reader", 150], ["decoders", 340], ["scheduler", 530], ["workers", 730], ["target", 890]];
const STAGE_WIDTH = 100;
const TANKS = [["undecoded", 265], ["decoded", 455], ["work", 655]];
const TANK_HEIGHT = 64;
const flow = {levels: {}, drops: [], cells: null, limit: null, speed: 0};

function drawFlow() {
  const svg = byId("flow");
  svg.replaceChildren(draw("line", {x1: 60, x2: 940, y1: PIPE_Y, y2: PIPE_Y, class: "pipe"}));
  for (let i = 0; i < 24; i += 1) {
    const drop = draw("circle", {r: 3.5, cy: PIPE_Y, cx: 60 + (880 / 24) * i, class: "drop"});
    flow.drops.push(drop);
    svg.append(drop);
  }
  for (const [name, x] of STAGES) {
    svg.append(draw("rect", {x, y: PIPE_Y - 26, width: STAGE_WIDTH, height: 52, rx: 8, class: "stage", id: `stage-${name}`}));
    svg.append(draw("text", {x: x + STAGE_WIDTH / 2, y: PIPE_Y + 5, "text-anchor": "middle"}, name));
    svg.append(draw("text", {x: x + STAGE_WIDTH / 2, y: PIPE_Y + 46, "text-anchor": "middle", class: "small", id: `note-${name}`}));
  }
  for (const [name, x] of TANKS) {
    const y = PIPE_Y - TANK_HEIGHT / 2;
    svg.append(draw("rect", {x, y, width: 50, height: TANK_HEIGHT, rx: 5, class: "tank"}));
    flow.levels[name] = draw("rect", {x: x + 2, y: y + TANK_HEIGHT, width: 46, height: 0, rx: 3, class: "level"});
    svg.append(flow.levels[name]);
    svg.append(draw("text", {x: x + 25, y: PIPE_Y + 46, "text-anchor": "middle", class: "small", id: `note-${name}`}));
  }
  flow.cells = draw("g", {transform: "translate(150 150)"});
  svg.append(flow.cells);
}

function kindOf(activity) {
  if (activity === "executing") return "execute";
  if (activity === "committing") return "commit";
  if (activity.startsWith("waiting")) return "wait";
  return activity === "encoding" ? "decode" : "idle";
}

function showFlow(status) {
  const fills = {};
  for (const queue of status.queues) {
    const fill = Math.min(1, Math.max(queue.bytes_max ? queue.bytes / queue.bytes_max : 0,
                                      queue.items_max ? queue.items / queue.items_max : 0));
    const height = fill * (TANK_HEIGHT - 4), level = flow.levels[queue.name];
    fills[queue.name] = fill;
    if (!level) continue;
    level.setAttribute("height", height);
    level.setAttribute("y", PIPE_Y + TANK_HEIGHT / 2 - 2 - height);
    level.setAttribute("class", fill > 0.9 ? "level high" : "level");
    say(`note-${queue.name}`, bytes(queue.bytes));
  }
  const busy = status.workers.filter((worker) => worker.activity !== "idle").length;
  say("note-source", status.source.connected ? status.source.place : "not connected");
  say("note-target", status.target.connected ? status.target.place : "not connected");
  say("note-reader", `${bytes(status.rates.bytes_read)}/s`);
  say("note-decoders", `${status.settings.decoders}`);
  say("note-scheduler", status.index ? `${number(status.index.touches)} keys` : "");
  say("note-workers", `${busy} of ${status.settings.workers} busy`);
  showLimit(status.lag.cause);
  showCells(status.workers);
  flow.speed = status.rates.transactions > 0 ? Math.min(260, 25 + 45 * Math.log10(1 + status.rates.transactions)) : 0;
  const tanks = Object.entries(fills).map(([name, fill]) => `${name} ${percent(fill)} full`).join(", ");
  say("flow-text", `Queues: ${tanks || "none"}. ${busy} of ${status.settings.workers} workers busy.`);
}

function showLimit(cause) {
  const place = {decoding: "decoders", network: "target", fsync: "target", execution: "target", lock_wait: "target", idle: ""}[cause] ?? "workers";
  for (const [name] of STAGES) byId(`stage-${name}`).classList.toggle("limit", name === place);
}

function showCells(workers) {
  const shown = workers.slice(0, 128), width = Math.min(40, 840 / Math.max(1, shown.length));
  flow.cells.replaceChildren(...shown.map((worker, index) => {
    const cell = draw("rect", {x: index * width, y: 0, width: width - 1, height: 22, rx: 3, class: `cell ${kindOf(worker.activity)}`});
    cell.append(draw("title", {}, `worker ${worker.number}: ${worker.activity}`));
    return cell;
  }));
}

let before = performance.now();
function move(now) {
  const step = (Math.min(100, now - before) / 1000) * flow.speed;
  before = now;
  if (step > 0 && !calm.matches) {
    for (const drop of flow.drops) {
      const x = Number(drop.getAttribute("cx")) + step;
      drop.setAttribute("cx", x > 940 ? 60 + (x - 940) : x);
    }
  }
  requestAnimationFrame(move);
}

// --- numbers and tables --------------------------------------------------------------------------------------------

function showNow(status) {
  const {lag, rates, memory, totals} = status;
  say("lag", duration(lag.seconds));
  say("lag-trend", lag.transactions ? (lag.growing ? "growing" : "not growing") : "nothing to apply");
  say("behind", number(lag.transactions));
  const gain = rates.source_transactions == null ? 0 : rates.transactions - rates.source_transactions;
  say("catch-up", lag.transactions > 100 && gain > 1 ? `caught up in about ${duration(lag.transactions / gain)}` : "");
  say("rate", rate(rates.transactions));
  say("rows", `${rate(rates.rows)} rows`);
  say("source-rate", rate(rates.source_transactions));
  const saved = totals.net_rows_in ? `, ${percent(totals.net_rows_saved / totals.net_rows_in)} of rows saved` : "";
  say("groups", rates.units > 0 ? `${(rates.transactions / rates.units).toFixed(1)} a target commit${saved}` : "");
  say("memory", memory ? bytes(memory.resident_bytes) : "–");
  say("memory-note", memory ? `of ${bytes(memory.budget_bytes)}, ${bytes(memory.queued_bytes)} in queues` : "");
}

function showHead(status) {
  const badge = byId("state");
  say("state", status.state);
  badge.className = `badge ${STATES[status.state] ?? ""}`;
  say("route", `${status.source.place} → ${status.target.place}`);
  say("because", status.lag.because || (status.state === "running" ? "Running." : ""));
  byId("error").hidden = !status.error;
  say("error", status.error);
  document.title = `${status.state}, ${duration(status.lag.seconds)} lag – applier`;
}

function showCauses(lag) {
  byId("causes").replaceChildren(...lag.causes.filter((cause) => cause.share >= 0.005).map((cause) => {
    const [words, kind] = CAUSES[cause.cause] ?? [cause.cause, "idle"];
    const bar = make("span", {class: `fill ${kind}`});
    bar.style.width = `${(cause.share * 100).toFixed(1)}%`;
    const detail = PLAIN.has(cause.cause) ? "" : cause.detail;
    return make("li", {}, make("span", {class: "what"}, detail ? `${words}: ${detail}` : words),
                make("span", {class: "track", "aria-hidden": "true"}, bar), make("span", {class: "number"}, percent(cause.share)));
  }));
  say("causes-note", `Shares of the last ${Math.round(lag.window_seconds)} seconds.`);
}

function showWorkers(status) {
  fillTable("workers", status.workers.map((worker) => [
    String(worker.number),
    make("span", {}, make("span", {class: `dot ${kindOf(worker.activity)}`, "aria-hidden": "true"}), worker.activity),
    duration(worker.activity_seconds),
    worker.transactions_in_unit ? number(worker.transactions_in_unit) : "",
    worker.gtid,
    worker.waits_for ? number(worker.waits_for) : "",
    number(worker.transactions),
    worker.last_error ? `${number(worker.retries)}: ${worker.last_error}` : number(worker.retries),
  ]), "no workers");
}

function showKeys(status) {
  fillTable("keys", status.hot_keys.map((key) => [key.table, key.key || "all rows", percent(key.share)]), "none in the last minute");
}

function showEvents(status) {
  fillTable("events", [...status.events].reverse().map((event) => {
    const fields = Object.entries(event.fields).map(([name, value]) => `${name}=${value}`).join(" ");
    const more = event.repeated ? ` (${event.repeated} more)` : "";
    return [new Date(event.at * 1000).toLocaleTimeString(), event.level, `${event.message} ${fields}${more}`];
  }), "none");
}

function showFacts(status) {
  const {source, target, settings, process, relay_log: relay} = status;
  const facts = [
    ["Source", `${source.user}@${source.place}, MySQL ${source.version ?? "?"}, ${source.file}:${source.position}`],
    ["Executed there", source.executed_gtid_set],
    ["Target", `${target.user}@${target.place}, MySQL ${target.version ?? "?"}`],
    ["Applied", target.applied_gtid_set],
    ["Channel", settings.channel],
    ["Settings", `${settings.workers} workers, ${settings.decoders} decoders, ${settings.commit_order} commit order, groups of ${number(settings.group_transactions)}, net changes ${settings.net_changes ? "on" : "off"}, GTIDs ${settings.target_gtids}`],
    ["Relay log", relay ? `${relay.folder}, ${relay.files} files, ${bytes(relay.bytes)}` : "none"],
    ["Round trips", `source ${duration(source.round_trip_seconds)}, target ${duration(target.round_trip_seconds)}`],
    ["Reconnects", `source ${source.reconnects}, target ${target.reconnects}`],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value ?? "–")]));
  say("footer", `applier ${process.version} on ${process.host}, process ${process.pid}, running for ${duration(status.at - process.started)}. Also: /status, /history, /metrics.`);
}

// --- curves --------------------------------------------------------------------------------------------------------

function showCurve(id, at, values, format, what) {
  const svg = byId(id), [width, height] = [600, 160];
  const most = Math.max(...values, 0) || 1, last = at[at.length - 1], span = Math.max(60, last - at[0]);
  const points = values.map((value, i) => [width - ((last - at[i]) / span) * width, height - 4 - (value / most) * (height - 16)]);
  const curve = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  svg.replaceChildren(...[0.25, 0.5, 0.75].map((share) => draw("line", {x1: 0, x2: width, y1: height * share, y2: height * share, class: "grid"})));
  if (points.length) {
    svg.append(draw("polygon", {points: `${points[0][0]},${height} ${curve} ${width},${height}`, class: "under"}), draw("polyline", {points: curve, class: "curve"}));
  }
  const text = values.length ? `${what}: now ${format(values[values.length - 1])}, at most ${format(Math.max(...values))} in the last ${duration(span)}.` : "No history yet.";
  svg.setAttribute("aria-label", text);
  say(`${id}-text`, text);
}

function showHistory(history) {
  showCurve("lag-chart", history.at, history.lag_seconds, duration, "Lag");
  showCurve("rate-chart", history.at, history.transactions_per_second, rate, "Transactions a second");
}

// --- asking --------------------------------------------------------------------------------------------------------

async function ask(path) {
  const answer = await fetch(path, {cache: "no-store", signal: AbortSignal.timeout(ANSWER_MILLISECONDS)});
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function silent() {
  say("state", "no answer");
  byId("state").className = "badge bad";
  say("because", "The applier does not answer. What is below is the last that it said.");
  flow.speed = 0;
}

async function follow(path, milliseconds, show, lost) {
  for (;;) {
    if (!document.hidden) {
      try {
        show(await ask(path));
      } catch (error) {
        lost(error);
      }
    }
    await new Promise((wake) => setTimeout(wake, milliseconds));
  }
}

function showStatus(status) {
  showHead(status);
  showNow(status);
  showFlow(status);
  showCauses(status.lag);
  showWorkers(status);
  showKeys(status);
  showEvents(status);
  showFacts(status);
}

drawFlow();
requestAnimationFrame(move);
follow("status", STATUS_MILLISECONDS, showStatus, silent);
follow("history", HISTORY_MILLISECONDS, showHistory, () => {});
