// The models of this server, loaded once and again when asked.
import { computed, signal } from "./vendor/preact.js";
import { ApiError, getJson } from "./api.js";

export const models = signal(null);
export const loadError = signal(null);
/** Sets of the configuration: several models under one name. */
export const sets = signal([]);

export const ready = computed(() => (models.value ?? []).filter((model) => model.ready));
const byName = computed(() => new Map((models.value ?? []).map((model) => [model.id, model])));

export const findModel = (name) => byName.value.get(name);

/** Return whether a name means a fusion: one answer that a model makes of the answers of several. */
export const isFusion = (name) => Boolean(name?.startsWith("fusion("));

export async function loadModels() {
  try {
    const listed = await getJson("/v1/models");
    // Ready ones first; the server's order otherwise.
    models.value = [...listed.data].sort((one, other) => other.ready - one.ready);
    sets.value = listed.sets ?? [];
    loadError.value = null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    loadError.value = error.message;
  }
}

/** Return the models that a search finds: words anywhere in name, provider or creator, or a pattern with `*`. */
export function searchModels(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean).map(toTest);
  return (models.value ?? []).filter((model) => {
    const facts = [model.id, model.name, model.provider, model.creator ?? "", ...model.aliases].map((fact) => fact.toLowerCase());
    return words.every((matches) => facts.some(matches));
  });
}

function toTest(word) {
  if (!word.includes("*")) return (fact) => fact.includes(word);
  const pattern = new RegExp(`^${word.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`);
  return (fact) => pattern.test(fact);
}
