// Our pages: live parts, actions, dialogs. No library; all text goes in as text, never as HTML,
// but for parts that the server has rendered.
"use strict";
(() => {
  const meta = (name) => document.querySelector(`meta[name="dicomq-${name}"]`).content;
  const base = meta("base");
  const byId = (id) => document.getElementById(id);

  // --- requests and messages

  async function ask(url, method = "GET", body = undefined, type = "application/json") {
    const headers = { "X-Xsrftoken": meta("token") };
    if (body !== undefined) headers["Content-Type"] = type;
    const raw = body === undefined || typeof body === "string" || body instanceof Blob;
    const answer = await fetch(url, { method, headers, body: raw ? body : JSON.stringify(body) });
    const text = await answer.text();
    let content = {};
    try { content = text ? JSON.parse(text) : {}; } catch { content = {}; }
    if (!answer.ok) throw new Error(content.errorMessage || `${answer.status} ${answer.statusText}`);
    return content;
  }

  function element(name, text = "", attributes = {}) {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function say(text, isError = false) {
    const toast = element("div", text, { class: isError ? "dq-toast dq-error" : "dq-toast", role: isError ? "alert" : "status" });
    byId("toast-container").append(toast);
    setTimeout(() => toast.remove(), isError ? 12000 : 6000);
  }

  const number = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
  const listed = (counts) => Object.entries(counts).map(([name, count]) => `${number(count)} ${name}`).join(", ");

  // --- the live part

  const part = byId("dq-part");
  const liveSwitch = byId("dq-live-switch");
  let shown = "";

  async function refresh() {
    if (!part) return;
    const answer = await fetch(location.href, { headers: { "X-Part": "1" } });
    if (answer.status === 404) {
      if (part.dataset.afterDelete) location.assign(part.dataset.afterDelete);
      return;
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    const html = await answer.text();
    if (html === shown) return;
    shown = html;
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    renewChildren(part, fresh.content);
  }

  // What is as before stays as it is: focus, selected text, ticked boxes, opened lists, and the
  // work of the browser.

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.task || node.id : "");

  function renewChildren(old, fresh) {
    const wanted = new Set([...fresh.children].map(keyOf));
    const keyed = new Map();
    for (const each of [...old.children].filter(keyOf)) {
      if (wanted.has(keyOf(each))) keyed.set(keyOf(each), each);
      else each.remove();
    }
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = keyOf(child);
      let same = key ? keyed.get(key) : at && !keyOf(at) ? at : null;
      if (same && same.nodeName !== child.nodeName) same = null;
      if (!same) { old.insertBefore(child, at); continue; }
      if (key) while (at && at !== same && !keyOf(at)) { const next = at.nextSibling; at.remove(); at = next; }
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      renew(same, child);
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  }

  function renew(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
    for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    renewChildren(old, fresh);
  }

  async function tick() {
    const dot = byId("dq-live-dot"), text = byId("dq-live-text");
    if (liveSwitch.checked && !document.hidden && !byId("dq-dialog").open) {
      try {
        await refresh();
        dot.className = "status-dot status-dot-live";
        text.textContent = "Live";
        text.className = "";
      } catch {
        dot.className = "status-dot";
        text.textContent = "No answer; what is shown may be old";
        text.className = "dq-stale";
      }
    } else if (!liveSwitch.checked) dot.className = "status-dot";
    setTimeout(tick, 1000 * Number(part.dataset.live));
  }
  if (part && part.dataset.live && liveSwitch) setTimeout(tick, 1000);

  // --- dialog

  const dialog = byId("dq-dialog"), dialogBody = byId("dq-dialog-body"), ok = byId("dq-dialog-ok"), closer = byId("dq-dialog-cancel");
  let onOk = null;
  byId("dq-dialog-form").addEventListener("submit", (event) => { event.preventDefault(); if (onOk) onOk(); });
  closer.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { onOk = null; });

  function openDialog(title, nodes, label, action, isWide = false) {
    dialog.classList.toggle("dq-dialog-wide", isWide);
    byId("dq-dialog-title").textContent = title;
    dialogBody.replaceChildren(...nodes);
    ok.textContent = label;
    ok.hidden = !label;
    ok.disabled = false;
    closer.textContent = label ? "Back" : "Close";
    onOk = action;
    if (!dialog.open) dialog.showModal();
  }

  function field(label, attributes, options = null) {
    const holder = element("label", label);
    const input = element(options ? "select" : "input", "", { class: options ? "form-select form-select-sm" : "form-control form-control-sm", ...attributes });
    for (const [value, text] of options || []) input.append(element("option", text, { value }));
    holder.append(input);
    return [holder, input];
  }

  function form(...nodes) { const div = element("div", "", { class: "dq-form" }); div.append(...nodes); return div; }

  async function attempt(work) {
    try { await work(); } catch (error) { say(error.message, true); ok.disabled = false; }
  }

  // --- one task

  const past = { cancel: "canceled", reschedule: "rescheduled", delete: "deleted" };

  function taskAction(button) {
    const { taskAction: operation, taskPk: pk } = button.dataset;
    const go = () => attempt(async () => {
      const answer = await ask(`${base}/api/tasks/${pk}/${operation}`, "POST", {});
      dialog.close();
      say(answer.status === "IN PROCESS" ? `Task ${pk}: its worker is told to stop` : `Task ${pk} ${past[operation]}`);
      await refresh();
    });
    if (operation === "delete") openDialog(`Delete task ${pk}?`, [element("p", "The task and its history go; what it delivered stays known.")], "Delete", go);
    else go();
  }

  // --- all matching tasks

  function bulkTarget(operation) {
    if (operation !== "reschedule") return { nodes: [], value: () => ({}) };
    const [atLabel, at] = field("When (empty: now)", { placeholder: "+30m, 2026-11-21T22:00", id: "dq-bulk-at" });
    const names = (part.dataset.exporters || "").split("\n").filter(Boolean);
    const [toLabel, to] = field("Through another exporter", { id: "dq-bulk-exporter" }, [["", "as before"], ...names.map((name) => [name, name])]);
    return { nodes: [form(atLabel, toLabel)], value: () => ({ at: at.value, exporter: to.value }) };
  }

  async function bulk(button) {
    const { bulk: operation, url, empty } = button.dataset;
    const target = bulkTarget(operation);
    const expected = await ask(url.replace("/bulk", "/preview"), "POST", { operation });
    const nodes = [element("p", expected.text, { id: "dq-bulk-preview" })];
    let sure = null;
    if (empty && expected.changed) {
      const holder = element("label", "", { class: "dq-check" });
      sure = element("input", "", { type: "checkbox", id: "dq-bulk-sure" });
      holder.append(sure, " No filter is set: I mean every task there is");
      nodes.push(form(holder));
    }
    nodes.push(...target.nodes);
    const label = expected.changed ? button.textContent.replace("all matching tasks…", number(expected.changed)).trim() : "";
    openDialog(button.textContent.replace("…", ""), nodes, label, () => attempt(async () => {
      if (sure && !sure.checked) throw new Error("Say that you mean every task, or set a filter");
      ok.disabled = true;
      const job = await ask(url, "POST", { operation, everything: Boolean(sure), ...target.value() });
      await follow(job);
    }));
  }

  async function follow(job) {
    const bar = element("progress", "", { max: Math.max(job.total, 1), value: 0, "aria-label": "Progress" });
    const text = element("p", "Starting…", { id: "dq-bulk-progress", "aria-live": "polite" });
    openDialog("Working", [text, bar], "Stop", () => attempt(() => ask(`${base}/api/bulk/${job.id}/stop`, "POST", {})));
    closer.textContent = "Hide";
    for (;;) {
      const state = await ask(`${base}/api/bulk/${job.id}`);
      bar.value = state.visited;
      text.textContent = `${number(state.visited)} of ${number(state.total)}: ${state.text}`;
      if (state.finished) {
        const result = state.error || (state.stopped ? `Stopped. ${state.text}` : `Done. ${state.text}`);
        if (dialog.open) openDialog(state.error ? "It failed" : "Result", [element("p", result, { id: "dq-bulk-result" })], "", null);
        else say(result, Boolean(state.error));
        await refresh();
        return;
      }
      await new Promise((next) => setTimeout(next, 300));
    }
  }

  // --- count

  async function count(button) {
    const output = byId("dq-count-result");
    output.textContent = "Counting…";
    try {
      const answer = await ask(button.dataset.url);
      output.textContent = `${number(answer.count)} task${answer.count === 1 ? "" : "s"}${answer.count ? ": " + listed(answer.status) : ""}`;
    } catch (error) { output.textContent = ""; throw error; }
  }

  // --- studies

  function chosenStudies(button) {
    if (button.dataset.study) return { studies: [button.dataset.study], series: button.dataset.series || "", words: button.dataset.series ? "this series" : "this study" };
    if (button.dataset.all) return { query: button.dataset.all, words: "all studies that match" };
    const studies = [...document.querySelectorAll("input[data-keep]:checked")].map((box) => box.value);
    if (!studies.length) throw new Error("Choose studies first");
    return { studies, words: `${studies.length} stud${studies.length === 1 ? "y" : "ies"}` };
  }

  async function exportDialog(button) {
    const chosen = chosenStudies(button);
    if (chosen.query) {
      const found = await ask(`${base}/api/studies/count?${chosen.query === "-" ? "" : chosen.query}`);
      if (!found.count) throw new Error("No study matches");
      chosen.words = `all ${number(found.count)} studies that match`;
    }
    const exporters = JSON.parse(part.dataset.exporters);
    if (!exporters.length) throw new Error("No exporter is configured: import a dcmExporter entry");
    const [exporterLabel, exporter] = field("Exporter", { id: "dq-exporter", required: "" }, exporters);
    const [whenLabel, when] = field("When (empty: now)", { id: "dq-at", placeholder: "+2h, 2026-11-21T22:00" });
    const [batchLabel, batch] = field("Batch", { id: "dq-batch", placeholder: "optional name" });
    const what = element("fieldset");
    what.append(element("legend", "What", { class: "h6" }));
    for (const [value, text] of [["", "Export, then what follows it"], ["only-ian", "IAN without export: notify only, send no objects"], ["only-stgcmt", "Commitment without export: ask only, send no objects"]]) {
      const label = element("label", "", { class: "d-block" });
      const radio = element("input", "", { type: "radio", name: "only", value, ...(value ? {} : { checked: "" }) });
      label.append(radio, ` ${text}`);
      what.append(label);
    }
    openDialog(`Export ${chosen.words}`, [form(exporterLabel, what, whenLabel, batchLabel)], "Schedule", () => attempt(async () => {
      ok.disabled = true;
      const only = what.querySelector("input:checked").value;
      const order = { ...chosen, exporter: exporter.value, at: when.value, batch: batch.value, only };
      const answer = await ask(`${base}/api/studies/export`, "POST", order);
      dialog.close();
      say(`${number(answer.count)} task${answer.count === 1 ? "" : "s"} scheduled`);
      await refresh();
    }));
  }

  // --- retrieving: ask an archive what it holds, choose, retrieve

  const asked = [["PatientName", "Patient name", "DOE^J*"], ["PatientID", "Patient ID", ""], ["StudyDate", "Study date", "20261121, a-b"], ["ModalitiesInStudy", "Modality", "CT"], ["AccessionNumber", "Accession number", ""], ["StudyInstanceUID", "Study Instance UID", "1.2.840…"]];

  function retrieveDialog(button, before = null) {
    const own = part.dataset.own.split("\n").filter(Boolean);
    const address = new URLSearchParams(location.search);
    const given = before || Object.fromEntries(asked.map(([name]) => [name, address.get(name) || ""]));
    const [fromLabel, from] = field("At archive (AE title)", { id: "dq-from", required: "", list: "dq-aes", maxlength: "16", value: given.from || "" });
    const [asLabel, as] = field("Asked by our AE", { id: "dq-as" }, own.map((title) => [title, title]));
    if (given.as) as.value = given.as;
    const inputs = asked.map(([name, label, hint]) => { const [holder, input] = field(label, { name, placeholder: hint, value: given[name] || "" }); return { name, holder, input }; });
    const fields = element("div", "", { class: "dq-fields dq-form" });
    fields.append(fromLabel, asLabel, ...inputs.map((each) => each.holder));
    openDialog("Retrieve from an external archive", [fields], "Search there", () => attempt(async () => {
      const wanted = { from: from.value.trim(), as: as.value, ...Object.fromEntries(inputs.map(({ name, input }) => [name, input.value.trim()])) };
      ok.disabled = true;
      ok.textContent = "Asking…";
      try { foundDialog(wanted, await ask(`${base}/api/studies/find`, "POST", wanted)); }
      catch (error) { ok.textContent = "Search there"; throw error; }
    }), true);
  }

  function foundDialog(wanted, found) {
    const again = element("button", "Search again", { type: "button", class: "btn btn-link btn-sm", id: "dq-again" });
    again.addEventListener("click", () => retrieveDialog(null, wanted));
    if (!found.studies.length) { openDialog(`${wanted.from} holds no such study`, [element("p", "Take a condition away, or write a wildcard such as DOE*."), again], "", null, true); return; }
    const table = element("table", "", { class: "table table-sm align-middle mb-0", id: "dq-found" });
    const head = table.createTHead().insertRow();
    for (const text of ["", "Patient", "Patient ID", "Date", "Modality", "Description", "Objects", "Here"]) head.append(element("th", text, { scope: "col" }));
    const boxes = [];
    const rows = table.createTBody();
    for (const study of found.studies) {
      const row = rows.insertRow();
      const box = element("input", "", { type: "checkbox", value: study.StudyInstanceUID, "aria-label": `Choose study ${study.StudyInstanceUID}`, ...(found.studies.length === 1 ? { checked: "" } : {}) });
      boxes.push(box);
      row.insertCell().append(box);
      const here = study.here ? number(study.here) : "–";
      for (const text of [study.PatientName || "(no name)", study.PatientID, study.StudyDate, study.ModalitiesInStudy, study.StudyDescription, study.NumberOfStudyRelatedInstances, here]) row.insertCell().textContent = text;
      row.title = study.StudyInstanceUID;
    }
    const holder = element("div", "", { class: "dq-found" });
    holder.append(table);
    const [toLabel, to] = field("To (AE title)", { id: "dq-to", required: "", list: "dq-aes", maxlength: "16", value: wanted.as });
    const [whenLabel, when] = field("When (empty: now)", { id: "dq-retrieve-at", placeholder: "+2h" });
    const [batchLabel, batch] = field("Batch", { id: "dq-retrieve-batch", placeholder: "optional name" });
    const fields = element("div", "", { class: "dq-fields dq-form mt-2" });
    fields.append(toLabel, whenLabel, batchLabel);
    const plural = found.studies.length === 1 ? "y" : "ies";
    const title = found.more ? `The first ${number(found.studies.length)} studies at ${wanted.from}` : `${number(found.studies.length)} stud${plural} at ${wanted.from}`;
    openDialog(title, [holder, fields, again], "Retrieve chosen", () => attempt(async () => {
      const studies = boxes.filter((box) => box.checked).map((box) => box.value);
      if (!studies.length) throw new Error("Choose studies first");
      ok.disabled = true;
      const answer = await ask(`${base}/api/studies/retrieve`, "POST", { from: wanted.from, as: wanted.as, to: to.value.trim(), studies, at: when.value, batch: batch.value });
      dialog.close();
      say(answer.count === 1 ? `Task ${answer.tasks[0]} scheduled` : `${number(answer.count)} tasks scheduled`);
      await refresh();
    }), true);
  }

  // --- gates

  function gate(button) {
    const { gate: action, url, name } = button.dataset;
    const go = (reason) => attempt(async () => {
      const answer = await ask(url, "POST", { reason });
      if (dialog.open) dialog.close();
      say(answer.text);
      await refresh();
    });
    if (action !== "pause") { say(action === "echo" ? `C-ECHO to ${name}…` : `Resuming ${name}…`); go(""); return; }
    const [label, reason] = field("Why (others see it)", { id: "dq-reason" });
    openDialog(`Pause ${name}?`, [element("p", "Nothing more is handed over; what runs ends as usual."), form(label)], "Pause", () => go(reason.value));
  }

  // --- uploads

  async function upload(form) {
    const chooser = form.querySelector("input[type=file]");
    if (chooser && !chooser.files[0]) throw new Error("Choose a file first");
    const body = chooser ? chooser.files[0].slice(0, Number(form.dataset.most || chooser.files[0].size)) : "";
    const query = new URLSearchParams(new FormData(form));
    query.delete("file");
    const answer = await fetch(`${form.dataset.url}?${query}`, { method: "POST", body, headers: { "X-Xsrftoken": meta("token"), "Content-Type": "application/octet-stream" } });
    const text = await answer.text();
    if (!answer.ok) { let message = text; try { message = JSON.parse(text).errorMessage; } catch { /* as it is */ } throw new Error(message); }
    const result = byId(form.dataset.result);
    result.innerHTML = text;
    result.scrollIntoView({ block: "nearest" });
  }

  // --- one listener for all buttons

  const kinds = [["taskAction", taskAction], ["bulk", bulk], ["export", exportDialog], ["retrieve", retrieveDialog], ["gate", gate]];
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.disabled) return;
    if (button.id === "dq-count") { attempt(() => count(button)); return; }
    const kind = kinds.find(([name]) => name in button.dataset);
    if (kind) attempt(async () => kind[1](button));
  });
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.url && event.target.dataset.result) { event.preventDefault(); attempt(() => upload(event.target)); }
    if (event.target.id === "dq-filter") for (const input of event.target.querySelectorAll("input, select")) if (!input.value) input.disabled = true;
  });
  window.addEventListener("pageshow", () => { for (const input of document.querySelectorAll("#dq-filter :disabled")) if (!input.closest(".dropdown")) input.disabled = false; });
  byId("dq-choose-all")?.addEventListener("change", (event) => { for (const box of document.querySelectorAll("input[data-keep]")) box.checked = event.target.checked; });
})();
