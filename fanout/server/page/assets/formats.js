// Numbers and times as people read them. What is not known is a dash, never 0.
export const UNKNOWN = "–";

const known = (value, format) => (value === null || value === undefined ? UNKNOWN : format(value));

export const count = (value) => known(value, (number) => number.toLocaleString("en-US"));
export const percent = (value) => known(value, (share) => `${(share * 100).toFixed(share && share < 0.1 ? 1 : 0)} %`);
export const decimal = (value, digits = 3) => known(value, (number) => number.toFixed(digits));

export function duration(ms) {
  return known(ms, (value) => {
    if (value < 1000) return `${Math.round(value)} ms`;
    if (value < 60_000) return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s`;
    const minutes = Math.floor(value / 60_000);
    const seconds = Math.round((value % 60_000) / 1000);
    if (minutes < 60) return `${minutes} min${seconds ? ` ${seconds} s` : ""}`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  });
}

export function cost(usd) {
  return known(usd, (value) => {
    if (value === 0) return "$0";
    // Two significant digits for parts of a cent, which most answers cost.
    return value < 0.01 ? `$${Number(value.toPrecision(2)).toFixed(Math.min(9, 1 - Math.floor(Math.log10(value))))}` : `$${value.toFixed(value < 1 ? 4 : 2)}`;
  });
}

export const rate = (value) => known(value, (number) => `${number < 10 ? number.toFixed(1) : Math.round(number).toLocaleString("en-US")}/s`);

export function moment(value) {
  return known(value, (given) => {
    const date = new Date(typeof given === "number" ? given * 1000 : given);
    return date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  });
}

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
