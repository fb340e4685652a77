/* Says under a `%%plan` cell what is wrong with it, as it is typed. Decision 191 tells why it is so.
 *
 * The kernel judges (abfed/lab/views/typed.py), over a comm that `%load_ext abfed` opens. Nothing is sent
 * to a kernel that has no such comm, that is busy, or for a cell that doesn't begin with `%%plan`.
 * What the kernel says is shown as text, never as markup.
 *
 * Written by hand and served as it is: JupyterLab loads a script that registers a container, which
 * gets JupyterLab's own modules (`init`) and gives a plugin (`get`).
 */
"use strict";

(() => {
  const TARGET = "abfed.plan";
  const QUIET = 300; // ms without a key before the kernel is asked
  const PATIENCE = 15000; // ms until an answer is given up
  const MOST = 65536; // characters; as in abfed/lab/views/typed.py
  const PLAN = /^(?:[^\S\n]*\n)*[^\S\n]*%%plan(?!\S)/;
  const STYLE = `
    .abfed-typed { margin: 2px 8px 4px calc(var(--jp-cell-prompt-width) + 13px); padding: 2px 8px;
      border-left: 3px solid var(--abfed-mark); color: var(--jp-content-font-color1);
      font: var(--jp-ui-font-size1)/1.5 var(--jp-ui-font-family); overflow-wrap: anywhere; }
    .abfed-typed > b { color: var(--abfed-mark); margin-right: .5em; }
    .abfed-typed > span { display: block; white-space: pre-wrap; }
    .abfed-typed > b + span { display: inline; }
    .abfed-typed { --abfed-mark: #5b6875; }
    .abfed-typed[data-state=ok] { --abfed-mark: #00704f; }
    .abfed-typed[data-state=wrong] { --abfed-mark: #b3261e; }
    [data-jp-theme-light=false] .abfed-typed { --abfed-mark: #a9b4be; }
    [data-jp-theme-light=false] .abfed-typed[data-state=ok] { --abfed-mark: #4fc79f; }
    [data-jp-theme-light=false] .abfed-typed[data-state=wrong] { --abfed-mark: #ff8f7f; }`;
  const SIGNS = { ok: "✓ ok", wrong: "✗ not a plan yet", waiting: "… not checked yet" };

  const comms = new Map(); // kernel's id to the comm that it opened
  const asked = new Map(); // a question's id to the view that waits for the answer

  /** What stands under one cell. */
  class View {
    constructor(cell, panel) {
      this.cell = cell;
      this.panel = panel;
      this.timer = this.patience = this.id = this.node = null;
      this.blocked = false; // by a busy kernel; our own question makes it busy, too
      cell.model.sharedModel.changed.connect((_, change) => change.sourceChange && this.soon());
      cell.disposed.connect(() => this.forget());
      cell.ready.then(() => this.check());
    }

    soon() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.check(), QUIET);
    }

    /** No answer is waited for any more. */
    forget() {
      clearTimeout(this.timer);
      clearTimeout(this.patience);
      asked.delete(this.id);
    }

    /** Ask the kernel about the cell as it stands, or say why that can't be. */
    check() {
      this.forget();
      this.blocked = false;
      if (this.cell.isDisposed) return;
      const text = this.cell.model.sharedModel.getSource();
      if (!PLAN.test(text)) return this.clear();
      const kernel = kernelOf(this.panel);
      const comm = kernel && comms.get(kernel.id);
      if (!comm || comm.isDisposed) return this.show("waiting", ["run %load_ext abfed first"]);
      if (text.length > MOST) return this.show("waiting", ["too long to check as it is typed: run the cell"]);
      this.blocked = kernel.status !== "idle";
      if (this.blocked) return this.show("waiting", ["the kernel is busy"]);
      this.id = crypto.getRandomValues(new Uint32Array(4)).join("-");
      asked.set(this.id, this);
      this.patience = setTimeout(() => this.lost(), PATIENCE);
      comm.send({ id: this.id, text });
    }

    lost() {
      this.forget();
      const kernel = kernelOf(this.panel);
      this.blocked = Boolean(kernel) && kernel.status !== "idle"; // a cell was asked for first
      this.show("waiting", [this.blocked ? "the kernel is busy" : "the kernel doesn’t answer: run %reload_ext abfed"]);
    }

    hear(said) {
      this.forget();
      if (said.plan) this.show("ok", [said.plan]);
      else if (said.problems) this.show("wrong", [...said.problems, ...(said.more ? [`and ${said.more} more`] : [])]);
      else this.clear();
    }

    clear() {
      if (this.node) this.node.remove();
      this.node = null;
    }

    show(state, lines) {
      const under = this.cell.node.querySelector(":scope > .jp-Cell-inputWrapper");
      if (!under) return; // not drawn yet: `ready` comes back here
      if (!this.node) {
        this.node = document.createElement("div");
        this.node.className = "abfed-typed";
        this.node.setAttribute("role", "status"); // read out when it changes, without moving there
        this.node.setAttribute("aria-live", "polite");
        this.node.setAttribute("aria-atomic", "true");
        under.after(this.node);
      }
      const told = JSON.stringify([state, lines]);
      if (this.node.dataset.told === told) return; // nothing new to read out
      this.node.dataset.told = told;
      this.node.dataset.state = state;
      this.node.replaceChildren(textOf("b", SIGNS[state]), ...lines.map((line) => textOf("span", line)));
    }
  }

  function textOf(tag, text) {
    const node = document.createElement(tag);
    node.textContent = text;
    return node;
  }

  function kernelOf(panel) {
    return panel.sessionContext.session && panel.sessionContext.session.kernel;
  }

  /** Everything that one notebook needs; its views end with their cells. */
  function attend(panel) {
    const views = new Map();
    const notebook = panel.content;
    const sweep = () => {
      for (const [cell] of views) if (cell.isDisposed) views.delete(cell);
      for (const cell of notebook.widgets)
        if (cell.model.type === "code" && !views.has(cell)) views.set(cell, new View(cell, panel));
    };
    const again = () => {
      sweep();
      for (const view of views.values()) view.check();
    };
    const modelled = () => {
      if (notebook.model) notebook.model.cells.changed.connect(() => setTimeout(sweep));
      sweep();
    };
    const connect = () => {
      const kernel = kernelOf(panel);
      if (kernel) listen(kernel, again);
      again();
    };
    notebook.modelChanged.connect(modelled);
    notebook.activeCellChanged.connect(sweep); // whoever types is there
    panel.sessionContext.kernelChanged.connect(connect);
    panel.sessionContext.statusChanged.connect((_, status) => {
      if (status === "idle") for (const view of views.values()) if (view.blocked) view.check();
      if (/dead|restarting|terminating/.test(status)) again();
    });
    modelled();
    connect();
  }

  /** Take the comm that a kernel opens, or has opened before this page was loaded. */
  async function listen(kernel, again) {
    const take = (comm) => {
      comm.onMsg = (message) => {
        const said = message.content.data;
        const view = asked.get(said.id); // another page's question is none of ours
        if (view) view.hear(said);
      };
      comms.set(kernel.id, comm);
      again();
    };
    if (!kernel.handleComms) return; // another notebook of this page speaks for this kernel
    kernel.registerCommTarget(TARGET, take);
    kernel.disposed.connect(() => comms.delete(kernel.id));
    try {
      await kernel.info;
      const reply = await kernel.requestCommInfo({ target_name: TARGET });
      const [known] = Object.keys(reply.content.comms || {});
      if (known && !kernel.hasComm(known)) take(kernel.createComm(TARGET, known));
    } catch (reason) {
      console.debug("abfed: the kernel went before it told of its comms", reason);
    }
  }

  let shared;
  const container = {
    init: (scope) => void (shared = scope),
    get: async () => {
      const [offered] = Object.values(shared["@jupyterlab/notebook"]); // JupyterLab shares one
      const { INotebookTracker } = (await offered.get())();
      const plugin = {
        id: "abfed:plan",
        description: "Says under a %%plan cell what is wrong with it, as it is typed.",
        autoStart: true,
        requires: [INotebookTracker],
        activate: (_, tracker) => {
          document.head.append(textOf("style", STYLE));
          tracker.forEach(attend); // open before this came
          tracker.widgetAdded.connect((_, panel) => attend(panel));
        },
      };
      return () => ({ __esModule: true, default: plugin });
    },
  };
  (window._JUPYTERLAB = window._JUPYTERLAB || {}).abfed = container;
})();
