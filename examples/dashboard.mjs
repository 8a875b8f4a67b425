// Feed a dashboard: usage by model and the state of every provider, fetched from a running server.
//
// usage: FANOUT_API_KEYS=… node examples/dashboard.mjs [ADDRESS]      by default http://127.0.0.1:8080

const address = process.argv[2] ?? "http://127.0.0.1:8080";
const key = process.env.FANOUT_API_KEYS?.split(",")[0];
const headers = key ? { Authorization: `Bearer ${key}` } : {};

/** Fetch one resource; throw the server's own message if it refuses. */
async function get(path) {
  const response = await fetch(address + path, { headers });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error.message);
  return body.data;
}

const [usage, providers] = await Promise.all([get("/v1/usage?group_by=model"), get("/v1/providers")]);
// null means unknown, and must not be drawn as 0.
const shown = (value, unit = "") => (value === null ? "unknown" : `${value}${unit}`);

for (const row of usage) {
  const failed = row.requests - row.answered;
  console.log(`${row.model}: ${row.requests} calls, ${failed} failed, ${shown(row.total_tokens)} tokens, ${shown(row.cost_usd, " USD")}`);
}
for (const provider of providers.filter((provider) => provider.ready)) {
  const recent = provider.accounts.map((account) => account.recent);
  const calls = recent.reduce((sum, account) => sum + account.calls, 0);
  console.log(`${provider.id}: ready, ${calls} calls in the last five minutes`);
}
