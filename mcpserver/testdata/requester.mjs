// Calls a tool of the server at the given URL with the reference requester of the
// tasks extension, and prints the outcome.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { createTaskSessionFromClient, resultFromTaskOutcome } from "@modelcontextprotocol/ext-tasks/client";

const [url, tool, args] = process.argv.slice(2);
const clientInfo = { name: "requester", version: "1" };
const protocolVersion = "2026-07-28";
const client = new Client(clientInfo, { capabilities: {}, versionNegotiation: { mode: { pin: protocolVersion } } });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

let id = 1000;
const rawDispatch = async (request, options) => {
  const headers = {
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "mcp-protocol-version": protocolVersion,
    "mcp-method": request.method,
  };
  const name = request.params?.name ?? request.params?.taskId;
  if (name) headers["mcp-name"] = name;
  const body = JSON.stringify({ jsonrpc: "2.0", id: ++id, ...request });
  const answer = await fetch(url, { method: "POST", headers, body, signal: options?.signal });
  const text = await answer.text();
  const data = text.split("\n").filter((line) => line.startsWith("data:") && line.includes('"id"'));
  return JSON.parse(data.length > 0 ? data.at(-1).slice("data:".length) : text);
};

const session = createTaskSessionFromClient(client, {
  endpointId: "bgagent",
  rawDispatch,
  v2RequestFraming: { protocolVersion, clientInfo, clientCapabilities: {} },
});
const execution = await session.callTool(tool, JSON.parse(args));
const { outcome } = await execution.settle();
const result = resultFromTaskOutcome(outcome);
console.log(JSON.stringify({ kind: execution.kind, text: result.content[0].text, structured: result.structuredContent }));
await session.close();
await client.close();
