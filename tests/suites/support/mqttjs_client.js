// Says and hears with MQTT.js.
//
// node mqttjs_client.js URL ADMIN_KEY READ_KEY; MQTT.js is found through NODE_PATH.

const assert = require('node:assert');
const mqtt = require('mqtt');

const PATIENCE_MS = 15_000;
const TOPIC = 'alicia/suite/mqttjs';

const [url, adminKey, readKey] = process.argv.slice(2);

const patience = setTimeout(() => {
  console.error('no answer in time');
  process.exit(1);
}, PATIENCE_MS * 2);

function connect(protocolVersion, username, password) {
  return mqtt.connectAsync(url, { protocolVersion, username, password, reconnectPeriod: 0, connectTimeout: PATIENCE_MS });
}

// The next `count` messages.
function hear(client, count) {
  return new Promise((resolve) => {
    const heard = [];
    client.on('message', (topic, payload, packet) => {
      heard.push([topic, payload.toString(), packet.qos]);
      if (heard.length === count) resolve(heard);
    });
  });
}

async function talk(protocolVersion) {
  const speaker = await connect(protocolVersion, 'admin', adminKey);
  const listener = await connect(protocolVersion, 'reader', readKey);
  const [grant] = await listener.subscribeAsync(TOPIC, { qos: 2 });
  assert.strictEqual(grant.qos, 2);
  await assert.rejects(listener.subscribeAsync('elsewhere/#', { qos: 1 }));
  const heard = hear(listener, 3);
  for (const qos of [0, 1, 2]) await speaker.publishAsync(TOPIC, `level ${qos}`, { qos });
  assert.deepStrictEqual(await heard, [0, 1, 2].map((qos) => [TOPIC, `level ${qos}`, qos]));
  await Promise.all([speaker.endAsync(), listener.endAsync()]);
  await assert.rejects(connect(protocolVersion, 'reader', adminKey), 'the key of another name was taken');
}

(async () => {
  for (const version of [4, 5]) {
    await talk(version);
    console.log(`MQTT ${version === 4 ? '3.1.1' : '5'} at ${new URL(url).protocol}: said and heard`);
  }
  clearTimeout(patience);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
