"use strict";
// The live page. Everything that it shows comes as one JSON object a message over server-sent events; what is asked for (search, page,
// stream) is the query of the stream of events, and stands in the address, so that a view can be kept and shared.

const byId = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.hash.slice(1));
let events = null, last = null, first = null, lead = "", pages = 1;

// -- asking -------------------------------------------------------------------------------------------------------------

function follow() {
  if (events) events.close();
  history.replaceState(null, "", "#" + asked);
  events = new EventSource("events?" + asked);
  events.onmessage = (message) => show(JSON.parse(message.data));
  events.onerror = () => verdict("bad", "no connection", "the daemon does not answer; trying again");
}

function ask(changes) {
  for (const [key, value] of Object.entries(changes)) value === "" || value === null ? asked.delete(key) : asked.set(key, value);
  follow();
}

// -- showing ------------------------------------------------------------------------------------------------------------

function show(told) {
  if (first === null || told.numbers["process_start_time_seconds"] !== first.numbers["process_start_time_seconds"]) first = told;
  const before = last || told;
  last = told;
  showHealth(told);
  showNumbers(told, before);
  showModel(told);
  showPartitions(told);
  showLetters(told);
  if (told.streams) showStreams(told);
  showDetail(told.detail);
}

function verdict(kind, word, why) {
  byId("verdict").className = kind;
  byId("verdict").textContent = word;
  byId("why").textContent = why;
  document.title = kind === "good" ? "recurd" : word + " – recurd";
}

function showHealth(told) {
  const failing = Object.entries(told.health).filter(([, why]) => why);
  const state = ["starting", "restoring", "running", "draining", "failed"].find((name) => told.numbers[`recurd_state{${name}}`]);
  if (!failing.length) verdict("good", "serving", told.partitions ? "" : "the loop is busy: streams are shown when it answers");
  else verdict("bad", failing[0][0] === "loop" ? "hangs" : state || "not ready", failing.map(([name, why]) => `${name}: ${why}`).join("; "));
}

function showNumbers(told, before) {
  const now = told.numbers, then = before.numbers, seconds = Math.max((told.time_ms - before.time_ms) / 1000, 1);
  const rate = (name) => Math.max(now[name] - then[name], 0) / seconds;
  const sum = (prefix) => Object.entries(now).filter(([name]) => name.startsWith(prefix)).reduce((total, [, value]) => total + value, 0);
  const [p50, p99] = [0.5, 0.99].map((share) => latency(now, first === told ? {} : first.numbers, share));
  const failed = ["aborted", "fenced", "timeout"].reduce((total, how) => total + now[`recurd_transactions_total{${how}}`], 0);
  const tiles = [
    [short(rate("recurd_readings_total{forecast}")), "forecasts a second"],
    [short(sum("recurd_consumer_lag_records{")), "records behind"],
    [span(now.recurd_consumer_lag_seconds * 1000), "age of the oldest"],
    [p50, "record to forecast, median"],
    [p99, "record to forecast, p99"],
    [short(now.recurd_streams_active), "streams"],
    [bytes(now.recurd_state_bytes), "of rows"],
    [short(sum("recurd_dead_letters_total{")), "dead letters"],
    [short(now["recurd_readings_total{late}"] + now["recurd_readings_total{duplicate}"]), "late or twice"],
    [short(failed), "transactions failed"],
    [errorRatio(now), "error / last value's"],
    [bytes(now.process_resident_memory_bytes), "memory"],
    [span(told.time_ms - now.process_start_time_seconds * 1000), "up"],
  ];
  fill(byId("numbers"), tiles.map(([value, what]) => make("div", {}, make("b", {}, value), make("span", {}, what))));
}

function latency(now, then, share) {
  const prefix = "recurd_source_latency_seconds_bucket{";
  const counts = Object.keys(now).filter((name) => name.startsWith(prefix))
    .map((name) => [name.slice(prefix.length, -1), now[name] - (then[name] || 0)])
    .map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count]).sort((a, b) => a[0] - b[0]);
  const total = counts.length ? counts[counts.length - 1][1] : 0;
  if (!total) return "–";
  const found = counts.find(([, count]) => count >= share * total);
  return found[0] === Infinity ? "> 1 d" : "≤ " + span(found[0] * 1000);
}

function errorRatio(now) {
  const sum = (who) => Object.entries(now).filter(([name]) => name.startsWith("recurd_prequential_abs_error_scaled_total{") && name.includes(who))
    .reduce((total, [, value]) => total + value, 0);
  return sum("naive") ? (sum("model") / sum("naive")).toFixed(2) : "–";
}

function showModel(told) {
  const rows = [["in force since", "version", "trained until", "from", "mean error", "last value's"]];
  for (const each of told.versions.slice().reverse()) {
    const facts = each.facts, scores = facts.scores || {};
    rows.push([moment(each.time_ms), make("code", {}, each.version), facts.last_time_ms ? moment(facts.last_time_ms) : "–",
      facts.parent ? make("code", {}, facts.parent) : "–", score(scores.mae), score(scores.naive_mae)]);
  }
  fill(byId("model"), [told.versions.length ? table(rows, [4, 5]) : make("p", { class: "soft" }, "none yet")]);
}

function showPartitions(told) {
  if (!told.partitions) return;
  const rows = [["partition", "", "streams", "next offset", "behind", "epochs, from offset on"]];
  for (const each of told.partitions) {
    const epochs = each.epochs.map(([offset, version, cold]) => `${version} @${offset}${cold ? " cold" : ""}`).join("  →  ");
    rows.push([each.number, each.serving ? "serving" : "catching up", short(each.streams), each.next_offset,
      short(told.numbers[`recurd_consumer_lag_records{${each.number}}`] || 0), make("code", {}, epochs)]);
  }
  fill(byId("partitions"), [told.partitions.length ? table(rows, [2, 3, 4]) : make("p", { class: "soft" }, "none here: other processes of the group hold them, or it has not joined yet")]);
}

function showLetters(told) {
  const prefix = "recurd_dead_letters_total{";
  const found = Object.entries(told.numbers).filter(([name, value]) => name.startsWith(prefix) && value);
  const rows = [["reason", "since the start"], ...found.map(([name, value]) => [name.slice(prefix.length, -1), short(value)])];
  fill(byId("letters"), [found.length ? table(rows, [1]) : make("p", { class: "soft" }, "none since the start")]);
}

// -- streams ------------------------------------------------------------------------------------------------------------

function showStreams(told) {
  pages = told.pages;
  byId("matching").textContent = `${told.matching.toLocaleString()} · page ${told.page + 1} of ${told.pages}`;
  byId("previous").disabled = told.page === 0;
  byId("next").disabled = told.page + 1 >= told.pages;
  asked.set("page", told.page);
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.place : null;
  fill(byId("streams"), told.streams.map(streamCard));
  if (focused) { const again = [...document.querySelectorAll("#streams button")].find((each) => each.dataset.place === focused); if (again) again.focus(); }
}

function streamCard(stream) {
  const place = stream.partition + " " + stream.stream;
  const chosen = asked.get("stream") === stream.stream && asked.get("partition") === String(stream.partition);
  const newest = stream.values ? stream.values[stream.values.length - 1] : null;
  const chart = svg("svg", { viewBox: "0 0 240 56", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (stream.values) draw(chart, stream, null, 240, 56, 2);
  const strange = stream.anomaly !== null && stream.anomaly >= 3;
  const facts = stream.warming ? "warming" : stream.anomaly === null || stream.anomaly === undefined ? "" : "anomaly " + stream.anomaly.toFixed(1);
  const button = make("button", { "data-place": place, "aria-label": `${stream.stream}, newest ${number(newest)}` },
    make("span", { class: "name" }, make("span", { title: stream.stream }, stream.stream), make("b", {}, number(newest))), chart,
    make("small", {}, stream.time_ms === null ? "reset · " : `${span(last.time_ms - stream.time_ms)} ago · `), make("small", { class: strange ? "strange" : "" }, facts));
  button.onclick = () => open(stream);
  return make("li", { class: chosen ? "chosen" : "" }, button);
}

function open(stream) {
  ask({ stream: stream.stream, partition: stream.partition });
  byId("detail").scrollIntoView({ block: "nearest" });
}

function showDetail(detail) {
  byId("detail").hidden = !detail;
  if (!detail) return;
  byId("detail-name").textContent = detail.stream;
  const leads = Object.keys(detail.past || {});
  if (!leads.includes(lead)) lead = leads[0] || "";
  fill(byId("lead"), leads.map((each) => make("option", { value: each, ...(each === lead ? { selected: "" } : {}) }, each + (each === "1" ? " step" : " steps"))));
  const box = byId("detail-chart"), width = Math.max(box.clientWidth, 280), height = Math.max(box.clientHeight, 180);
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.setAttribute("aria-label", `${detail.stream}: readings, forecast, and what was forecast earlier`);
  fill(box, []);
  if (detail.values) draw(box, detail, (detail.past || {})[lead] || [], width, height, 28);
  const errors = detail.naive_error && detail.naive_error[0] ? ` · running error ${(detail.model_error[0] / detail.naive_error[0]).toFixed(2)} of the last value's` : "";
  byId("detail-facts").textContent = `partition ${detail.partition} · ${detail.count.toLocaleString()} readings${detail.interval_ms ? ` · every ${span(detail.interval_ms)}` : ""} · version ${detail.version}${errors}`;
}

// Readings, the newest forecast's fan, and where `past` is given, what was forecast earlier at one lead, with axes.
function draw(chart, stream, past, width, height, margin) {
  const fan = stream.fan, levels = fan ? Object.keys(fan.quantiles).sort((a, b) => a - b) : [];
  const low = fan ? fan.quantiles[levels[0]] : [], high = fan ? fan.quantiles[levels[levels.length - 1]] : [];
  const times = stream.times_ms.concat(fan ? fan.times_ms : []);
  const shown = (past || []).filter((point) => point[0] >= stream.times_ms[0] && point[0] <= times[times.length - 1]);
  const values = stream.values.concat(low, high, ...shown.map((point) => point.slice(1))).filter((value) => value !== null);
  if (!values.length) return;
  let [least, most] = [Math.min(...values), Math.max(...values)];
  if (least === most) [least, most] = [least - 1, most + 1];
  const [from, to] = [times[0], Math.max(times[times.length - 1], times[0] + 1)];
  const left = past ? 52 : margin, right = width - margin;
  const x = (time) => left + (time - from) / (to - from) * (right - left);
  const y = (value) => height - margin - (value - least) / (most - least) * (height - 2 * margin);
  const line = (points) => points.reduce((path, [time, value]) => value === null ? path + " " : path + (path.length && !path.endsWith(" ") ? "L" : "M") + x(time).toFixed(1) + "," + y(value).toFixed(1), "");
  const joined = (xs, ys) => [[stream.times_ms[stream.times_ms.length - 1], stream.values[stream.values.length - 1] ?? ys[0]]].concat(zip(xs, ys));
  const band = (lower, upper) => line(lower) + line(upper.slice().reverse()).replace("M", "L") + "Z";
  const zip = (xs, ys) => xs.map((each, place) => [each, ys[place]]);
  if (past) axes(chart, { least, most, from, to, x, y, left, right, height });
  if (fan) {
    chart.append(svg("path", { class: "band", d: band(joined(fan.times_ms, low), joined(fan.times_ms, high)) }));
    chart.append(svg("path", { class: "median", d: line(joined(fan.times_ms, fan.quantiles["0.5"])) }));
  }
  if (shown.length > 1) {
    chart.append(svg("path", { class: "oldband", d: band(shown.map((point) => [point[0], point[1]]), shown.map((point) => [point[0], point[3]])) }));
    chart.append(svg("path", { class: "oldline", d: line(shown.map((point) => [point[0], point[2]])) }));
  }
  chart.append(svg("path", { class: "line", d: line(zip(stream.times_ms, stream.values)) }));
}

function axes(chart, { least, most, from, to, x, y, left, right, height }) {
  const rough = (most - least) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  for (let value = Math.ceil(least / step) * step; value <= most; value += step) {
    chart.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
    chart.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  const count = right - left > 500 ? 4 : 2;
  for (let place = 0; place <= count; place++) {
    const time = from + (to - from) * place / count;
    chart.append(svg("text", { x: x(time), y: height - 8, "text-anchor": place === 0 ? "start" : place === count ? "end" : "middle" }, to - from < 864e5 ? moment(time).slice(11) : moment(time).slice(0, 16)));
  }
}

// -- small things -------------------------------------------------------------------------------------------------------

function make(tag, attributes, ...children) { return build(document.createElement(tag), attributes, children); }
function svg(tag, attributes, ...children) { return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children); }
function build(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map((child) => child instanceof Node ? child : String(child)));
  return node;
}
function fill(node, children) { node.replaceChildren(...children); }
function table(rows, numeric) {
  const made = rows.map((row, place) => make("tr", {}, ...row.map((cell, column) => make(place ? "td" : "th", numeric.includes(column) ? { class: "number" } : {}, cell))));
  return make("div", { class: "table" }, make("table", {}, ...made));
}
function short(value) { return value >= 1e6 ? (value / 1e6).toFixed(1) + " M" : value >= 1e4 ? (value / 1e3).toFixed(1) + " k" : value >= 100 ? Math.round(value).toLocaleString() : String(Math.round(value * 10) / 10); }
function number(value) { return value === null || value === undefined ? "–" : String(Number(value.toPrecision(5))); }
function score(value) { return value === undefined ? "–" : value.toFixed(4); }
function bytes(value) { const units = ["B", "KiB", "MiB", "GiB", "TiB"]; let place = 0; while (value >= 1024 && place < 4) { value /= 1024; place++; } return value.toFixed(place ? 1 : 0) + " " + units[place]; }
function span(ms) {
  if (ms < 0) ms = 0;
  for (const [unit, size] of [["d", 864e5], ["h", 36e5], ["min", 6e4], ["s", 1e3]]) if (ms >= 2 * size) return Math.round(ms / size) + " " + unit;
  return ms >= 1000 ? (ms / 1000).toFixed(1) + " s" : Math.round(ms) + " ms";
}
function moment(ms) { return new Date(ms).toISOString().slice(0, 19).replace("T", " "); }

// -- hands --------------------------------------------------------------------------------------------------------------

let typing = 0;
byId("search").value = asked.get("search") || "";
byId("search").oninput = () => { clearTimeout(typing); typing = setTimeout(() => ask({ search: byId("search").value, page: "" }), 250); };
byId("previous").onclick = () => turn(-1);
byId("next").onclick = () => turn(1);
byId("close").onclick = () => ask({ stream: "", partition: "" });
byId("lead").onchange = () => { lead = byId("lead").value; if (last) showDetail(last.detail); };
function turn(by) { const page = Number(asked.get("page") || 0) + by; if (page >= 0 && page < pages) ask({ page }); }
document.onkeydown = (event) => {
  const inField = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "Escape") { if (inField) event.target.blur(); else ask({ stream: "", partition: "" }); }
  else if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  else if (event.key === "ArrowLeft") turn(-1);
  else if (event.key === "ArrowRight") turn(1);
};
window.onresize = () => { if (last) showDetail(last.detail); };
follow();
