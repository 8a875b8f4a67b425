// The next step after a failure, by its kind.
const BY_KIND = {
  auth: "`fanout check --live`, where the server runs, tells what to do.",
  rate_limit: "The provider's limit is reached. Wait a little, then run again.",
  quota: "The account has no credit left. Add some with the provider, or choose another model.",
  bad_request: "The provider refuses this request. Change the parameters, or remove them for this model.",
  unsupported: "This model cannot take that. Change the parameter, or remove it for this model.",
  content_filter: "The provider's filter has stopped this. Word the prompt in another way, or choose another model.",
  server: "The provider is in trouble. Run again; the Providers view shows how it has done lately.",
  network: "Check the connection, then run again.",
  timeout: "Ask for fewer tokens, or give it more time under Parameters.",
  malformed: "The provider's answer broke off. Run again.",
  not_found: "Choose another model with “Add a model”.",
  internal: "Fanout's own log has the details.",
};

/** Return what to do about an error. */
export function advise(error, model) {
  if (error.kind === "not_configured") {
    const missing = model?.missing?.join(" and ");
    return missing
      ? `Set ${missing} where the server runs, and start it again; \`fanout init\` asks for keys and tries them.`
      : "Set its key where the server runs, and start it again; `fanout init` asks for keys and tries them.";
  }
  if (error.kind === "rate_limit" && error.retry_after_s) return `The provider's limit is reached. Run again in ${Math.ceil(error.retry_after_s)} s.`;
  return BY_KIND[error.kind] ?? "";
}
