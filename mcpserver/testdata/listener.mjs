// Delegates in the foreground and listens to the handle with the schemas of the
// tasks extension's reference implementation. Prints whether every message is
// valid.
import {
  contributeTaskFilterV2, isCreateTaskResultV2, isTaskStatusNotificationV2, readAcceptedTaskIdsV2, withTaskCapabilityV2,
} from "@modelcontextprotocol/ext-tasks/core/v2";

const [url, tool, args] = process.argv.slice(2);
const protocolVersion = "2026-07-28";

let id = 0;
const post = (method, name, params) => {
  const headers = {
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "mcp-protocol-version": protocolVersion,
    "mcp-method": method,
    ...(name ? { "mcp-name": name } : {}),
  };
  const framed = withTaskCapabilityV2({
    ...params,
    _meta: {
      "io.modelcontextprotocol/protocolVersion": protocolVersion,
      "io.modelcontextprotocol/clientInfo": { name: "listener", version: "1" },
    },
  });
  return fetch(url, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", id: ++id, method, params: framed }) });
};

async function* messages(answer) {
  let text = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end; (end = text.indexOf("\n")) >= 0; text = text.slice(end + 1)) {
      if (text.startsWith("data:")) yield JSON.parse(text.slice("data:".length, end));
    }
  }
}

let created;
for await (const message of messages(await post("tools/call", tool, { name: tool, arguments: JSON.parse(args) }))) created = message.result;
const handle = created.taskId;
const listening = await post("subscriptions/listen", "", contributeTaskFilterV2({ notifications: {} }, [handle]));
const got = { created: isCreateTaskResultV2(created), accepted: false, statuses: [], invalid: [] };
for await (const message of messages(listening)) {
  if (message.method === "notifications/subscriptions/acknowledged") {
    got.accepted = readAcceptedTaskIdsV2(message.params).includes(handle);
    continue;
  }
  if (!isTaskStatusNotificationV2(message)) got.invalid.push(message);
  got.statuses.push(message.params?.status);
  if (message.params?.status !== "working") {
    got.text = message.params.result?.content?.[0]?.text;
    break;
  }
}
console.log(JSON.stringify(got));
process.exit(0);
