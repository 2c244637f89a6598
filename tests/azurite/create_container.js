// Makes a container: node create_container.js URL-OF-THE-ACCOUNT ACCOUNT KEY CONTAINER. One that is there already is fine.
const { createHmac } = require("node:crypto");

async function main(url, account, key, container) {
  const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2023-11-03" };
  const path = `${new URL(url).pathname}/${container}`;
  // Azure's "Shared Key": the verb, eleven standard headers (all empty here), our own headers in order, the resource.
  const signed = [
    "PUT",
    ...Array(11).fill(""),
    ...Object.entries(headers).map(([name, value]) => `${name}:${value}`),
    `/${account}${path}`,
    "restype:container",
  ].join("\n");
  const signature = createHmac("sha256", Buffer.from(key, "base64")).update(signed).digest("base64");
  headers.Authorization = `SharedKey ${account}:${signature}`;
  const answer = await fetch(`${url}/${container}?restype=container`, { method: "PUT", headers });
  if (answer.status !== 201 && answer.status !== 409) {
    throw new Error(`${answer.status}: ${await answer.text()}`);
  }
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
