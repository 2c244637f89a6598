// Makes the blob container of the lake in Azurite, unless it is there. Runs in Azurite's image, which has Node.js and no
// other client; signs by hand what Azure calls "Shared Key".
"use strict";
const crypto = require("node:crypto");
const http = require("node:http");

const account = process.env.AZURE_STORAGE_ACCOUNT_NAME;
const key = Buffer.from(process.env.AZURE_STORAGE_ACCOUNT_KEY, "base64");
const base = new URL(process.env.AZURITE_BLOB_STORAGE_URL);
const container = process.argv[2];

const date = new Date().toUTCString();
const version = "2021-12-02";
const path = `/${account}/${container}`;
// The path has the account once more: that is how an emulator's addresses are.
const resource = `/${account}${path}\nrestype:container`;
const toSign = ["PUT", ...Array(11).fill(""), `x-ms-date:${date}`, `x-ms-version:${version}`, resource].join("\n");
const signature = crypto.createHmac("sha256", key).update(toSign, "utf8").digest("base64");

const request = http.request(
  {
    method: "PUT",
    hostname: base.hostname,
    port: base.port,
    path: `${path}?restype=container`,
    headers: {
      "x-ms-date": date,
      "x-ms-version": version,
      authorization: `SharedKey ${account}:${signature}`,
      "content-length": 0,
    },
    timeout: 10000,
  },
  (response) => {
    const there = response.statusCode === 201 || response.statusCode === 409;
    console.log(`${container}: ${response.statusCode} ${response.statusMessage}`);
    response.resume();
    process.exitCode = there ? 0 : 1;
  },
);
request.on("timeout", () => request.destroy(new Error("no answer within 10 s")));
request.on("error", (error) => {
  console.error(`${container}: ${error.message}`);
  process.exitCode = 1;
});
request.end();
