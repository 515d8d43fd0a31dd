// Uses the types that were generated into schema.d.ts, against a real node. The compiler checks, strictly,
// that the document says what the service takes and answers.
//
// node use_client.js URL USER_KEY PROJECT_KEY HOME DEVICE prints what came of it as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];

const [url = "", userKey = "", projectKey = "", home = "", device = ""] = process.argv.slice(2);
const homeId = Number(home);
const user = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${userKey}` } });
const server = createClient<paths>({ baseUrl: url, headers: { Authorization: `ModeCloud ${projectKey}` } });

function eventOf(message: string): Schemas["ReceivedEvent"] {
  return JSON.parse(message) as Schemas["ReceivedEvent"];
}

// The platform's own events are told apart by their type alone.
function saved(event: Schemas["KeyValueSavedEvent"] | Schemas["DeviceConnectedEvent"]): string {
  return event.eventType === "_keyValueSaved_" ? event.eventData.key : event.timestamp;
}

const devices = await user.GET("/devices", { params: { query: { homeId } } });
const one = await user.GET("/devices/{deviceId}", { params: { path: { deviceId: Number(device) } } });
const isConnected: boolean | undefined = one.data?.isConnected;
const made = await user.POST("/homes", { body: { name: "Generated" } });
const missing = await user.GET("/homes/{homeId}", { params: { path: { homeId: 10 ** 15 } } });
const body = { eventType: "temperature", eventData: { celsius: 21.5 } };
const sent = await server.PUT("/homes/{homeId}/event", { params: { path: { homeId } }, body });
const batch = await server.POST("/events", { body: [{ eventType: "bulk", homeId }, { eventType: "bulk" }] });
const place = { path: { homeId, key: "mode" } };
await user.PUT("/homes/{homeId}/kv/{key}", { params: place, body: { value: "day" } });
const value = await user.GET("/homes/{homeId}/kv/{key}", { params: place });
const sessions = await user.GET("/api/v1/sessions/list", { params: { query: { count: 1 } } });
const success: true | undefined = sessions.data?.success;

console.log(
  JSON.stringify({
    devices: devices.data?.map((each) => each.deviceClass),
    device: [one.data?.id, isConnected],
    made: made.data?.name,
    missing: missing.error?.reason,
    sent: sent.response.status,
    batch: batch.data?.results.map((each) => each.status),
    value: value.data?.value,
    sessions: sessions.response.status,
    success: success ?? null,
    event: eventOf('{"eventType":"e","timestamp":"2026-11-30T17:43:09.000Z","homeId":1}').homeId,
    saved: saved({ eventType: "_keyValueSaved_", timestamp: "", homeId: 1, eventData: { key: "k" } }),
  }),
);
