// The view Blind: two answers without names, in an order drawn by the server; the names come after the vote.
import { html, useEffect, useState } from "../vendor/preact.js";
import { announce } from "../announcer.js";
import { ApiError, postJson } from "../api.js";
import { buildBody, chosen, prompt } from "../composer.js";
import { EntryList } from "../entry_list.js";
import { moment, plural } from "../formats.js";
import { Pending, useJson } from "../loader.js";
import { go } from "../router.js";

const CHOICES = { a: "A is better", b: "B is better", tie: "Tie", both_bad: "Both are bad" };
const KEYS = Object.keys(CHOICES);

function toText(prompt) {
  if (prompt === null || prompt === undefined) return null;
  if (typeof prompt === "string") return prompt;
  return Array.isArray(prompt) ? prompt.map((message) => (typeof message === "string" ? message : `${message.role}: ${typeof message.content === "string" ? message.content : JSON.stringify(message.content)}`)).join("\n") : JSON.stringify(prompt);
}

/** Texts of comparisons that were made here, by id and place: the server need not keep them. */
const texts = new Map();

/** Asks the chosen models, and shows nothing of their answers but as ballots. */
function Ask() {
  const [state, setState] = useState({ isAsking: false, error: null });
  const ask = async () => {
    setState({ isAsking: true, error: null });
    try {
      const answer = await postJson("/v1/completion", buildBody(prompt.value, chosen.value));
      texts.set(answer.id, answer.choices.map((choice) => choice.text));
      go(`/blind/comparisons/${answer.id}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState({ isAsking: false, error });
    }
  };
  const keys = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ask();
  return html`<section class="composer" aria-label="Prompt" onKeyDown=${keys}>
    <textarea id="prompt" rows="2" dir="auto" aria-label="Prompt" placeholder="Ask, and judge the answers without knowing whose they are…" value=${prompt} onInput=${(event) => (prompt.value = event.target.value)}></textarea>
    <${EntryList} />
    ${state.error && html`<${Pending} error=${state.error} />`}
    <div class="run-row"><span class="grow"></span><button class="run" disabled=${state.isAsking || !prompt.value.trim() || chosen.value.length < 2} onClick=${ask}>${state.isAsking ? "Asking…" : "Ask blind"}</button></div>
  </section>`;
}

/** Ballots of a job or a comparison, one after the other. */
function Ballots({ path }) {
  const [ballot, setBallot] = useState(null);
  const [vote, setVote] = useState(null);
  const [error, setError] = useState(null);
  const [done, setDone] = useState(0);
  const attempt = (step) => async (...given) => {
    try {
      setError(null);
      await step(...given);
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      setError(caught);
    }
  };
  const draw = attempt(async () => {
    setVote(null);
    setBallot(null);
    setBallot(await postJson(`${path}/ballots`));
  });
  const cast = attempt(async (choice) => {
    const cast = await postJson("/v1/votes", { ballot_id: ballot.id, choice });
    setVote(cast);
    setDone((number) => number + 1);
    announce(`A was ${cast.answers[0].model}, B was ${cast.answers[1].model}`);
  });
  useEffect(() => {
    draw();
  }, [path]);
  useEffect(() => {
    const press = (event) => {
      if (event.target.closest("input, textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
      const choice = KEYS[Number(event.key) - 1];
      if (choice && ballot && !vote) cast(choice);
      else if (event.key === "Enter" && vote && !event.target.closest("button, a")) draw();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [ballot, vote]);
  if (error?.code === "ballots_exhausted") return html`<p class="notice">Nothing is left to vote on here. ${done ? `${plural(done, "vote")} given.` : ""}</p>`;
  if (error && !ballot) return html`<${Pending} error=${error} reload=${draw} />`;
  if (!ballot) return html`<${Pending} />`;
  return html`<div class="ballot">
    ${toText(ballot.prompt) !== null && html`<section class="question"><h2>Prompt</h2><div class="plain-text" dir="auto" tabindex="0">${toText(ballot.prompt)}</div></section>`}
    ${error && html`<${Pending} error=${error} />`}
    <div class="columns pair">${ballot.answers.map((answer, place) => {
      const letter = "AB"[place];
      const isChosen = vote?.choice === KEYS[place];
      return html`<article class="column ${isChosen ? "chosen" : ""}" key=${letter} aria-label="Answer ${letter}">
        <header><h2>${letter}${vote ? ` · ${vote.answers[place].model}` : ""}</h2>${isChosen && html`<span class="state" data-state="done">your choice</span>`}</header>
        <div class="text" dir="auto" tabindex="0" role="group" aria-label="Text of ${letter}">${answer.text ?? texts.get(ballot.comparison_id)?.[answer.index] ?? "The text is not kept: FANOUT_HISTORY is not `full`."}</div></article>`;
    })}</div>
    <div class="votes" role="group" aria-label="Your vote">
      ${vote
        ? html`<button class="run" onClick=${draw}>Next pair <kbd aria-hidden="true">↵</kbd></button>`
        : KEYS.map((choice, number) => html`<button key=${choice} onClick=${() => cast(choice)}><kbd aria-hidden="true">${number + 1}</kbd> ${CHOICES[choice]}</button>`)}
    </div>
    <p class="quiet" role="status">${done ? `${plural(done, "vote")} given.` : "The names come after your vote."}</p>
  </div>`;
}

function Start() {
  const { data: jobs, error } = useJson("/v1/jobs?limit=50&state=done");
  const { data: runs } = useJson("/v1/comparisons?limit=20&failed=false");
  const pairs = (runs?.data ?? []).filter((run) => run.entries.length > 1);
  return html`<p>Two answers to the same prompt, without the names of their models. Your votes make a ranking in the job's report.</p>
    <${Ask} />
    ${error && html`<${Pending} error=${error} />`}
    <h2 class="section">Finished jobs</h2>
    ${jobs?.data.length ? html`<ul class="rows">${jobs.data.map((job) => html`<li key=${job.id}><a class="row-link" href="#/blind/${job.id}"><span class="when">${moment(job.created_at)}</span><span class="what">${job.name ?? job.id}</span><span>${plural(job.items, "row")}, ${plural(job.models.length, "model")}</span></a></li>`)}</ul>` : html`<p class="quiet">No job has ended yet.</p>`}
    <h2 class="section">Comparisons</h2>
    ${pairs.length ? html`<ul class="rows">${pairs.map((run) => html`<li key=${run.id}><a class="row-link" href="#/blind/comparisons/${run.id}"><span class="when">${moment(run.created)}</span><span class="what">${plural(run.entries.length, "answer")}</span></a></li>`)}</ul>` : html`<p class="quiet">No comparison of two models yet.</p>`}`;
}

export function Blind({ path }) {
  const [, , id, second] = path.split("/");
  const target = !id ? null : id === "comparisons" ? `/v1/comparisons/${second}` : `/v1/jobs/${id}`;
  return html`<section class="view"><h1>Blind</h1>${target ? html`<${Ballots} key=${target} path=${target} />` : html`<${Start} />`}</section>`;
}
