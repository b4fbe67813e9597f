// Run by test_mend.py with NNI's node, from the folder of NNI's sources: NNI's own remote service over workers made up
// here. Prints one line of JSON.
'use strict';
const nni = process.cwd(), [bridge] = process.argv.slice(2);
require('app-module-path').addPath(nni);
const { limits } = require(`${bridge}/mend_remote.js`);
require(`${bridge}/mend.js`);
limits.start = 300;
const { initGlobalsCustom } = require('common/globals');
initGlobalsCustom({ experimentId: 'x', experimentsDirectory: '/nowhere', logLevel: 'critical' }, '/dev/null');
require('common/tarball').createTarball = async name => `${name}.tgz`;
const workers = require('training_service/remote_v3/worker'), sleep = ms => new Promise(done => setTimeout(done, ms));
const words = [];
console.error = text => words.push(String(text));

const attempts = {}; // of starting an agent, by host
workers.Worker = class {
  constructor(id, channelId, config) {
    Object.assign(this, { channelId, config, envId: `remote-worker${channelId}`, env: { id: `remote-worker${channelId}` } });
    this.trialKeeper = { createTrial: async () => { throw new Error(`${config.host} is broken`); } };
    for (const event of ['onTrialStart', 'onTrialStop', 'onReceiveCommand', 'onEnvironmentUpdate']) this.trialKeeper[event] = () => {};
    this.ssh = { disconnect() {} };
  }
  async start() {
    const attempt = attempts[this.config.host] = (attempts[this.config.host] ?? 0) + 1;
    if (this.config.host === 'silent') await new Promise(() => {});
    if (this.config.host === 'absent') throw new Error('no python\nthere');
    if (this.config.host === 'mortal' && attempt > 1) throw new Error('it does not come back');
    if (this.config.host === 'slow' && attempt > 1) await sleep(100);
  }
  async upload() { if (this.config.host === 'full') throw new Error('disk full'); }
};
const { RemoteTrainingServiceV3 } = require('training_service/remote_v3/remote');

async function service(...hosts) {
  const machineList = hosts.map(host => ({ user: 'me', host, port: 22 }));
  const made = new RemoteTrainingServiceV3('remote', { machineList });
  Object.assign(made.server, { start: async () => {}, getChannelUrl: () => 'ws://nowhere' });
  made.listed = [];
  made.onEnvironmentUpdate(environments => made.listed.push(environments.map(one => one.host)));
  const started = await made.start().then(all => all.length, error => error.message);
  const code = await made.uploadDirectory('code', '/x').then(() => 'sent', error => error.message);
  return Object.assign(made, { started, code });
}

async function submit(environments, createTrial) { // the trials' part of mend.js over a service made up here
  const { V3asV1 } = require('training_service/v3/compat');
  const form = { sequenceId: 0, hyperParameters: { value: '{}' } }, asked = [];
  const made = Object.assign(Object.create(V3asV1.prototype), {
    config: {}, trialJobs: {}, environments: environments.map(id => ({ id, host: id })), allocatedParameters: new Map(),
    startDeferred: { promise: Promise.resolve() },
    v3: { createTrial: async place => { asked.push(place); return createTrial(place, asked.length); } },
  });
  const trial = await made.submitTrialJob(form);
  return [trial.envId, asked];
}

(async () => {
  const answer = {};
  const four = await service('good', 'silent', 'absent', 'full');
  answer.start = [four.started, four.code, four.workers.map(one => one.config.host), [...four.workersByEnv.keys()],
    [...four.workersByChannel.keys()], four.listed.at(-1)];
  answer.words = words.splice(0).sort();
  const none = await service('absent');
  answer.none = [none.started, none.code];
  const two = await service('mortal', 'slow'), [mortal, slow] = two.workers;
  await two.restartWorker(mortal);
  await two.restartWorker(mortal); // told twice of one end
  const before = two.listed.length, restarted = two.restartWorker(slow);
  two.emitEnvUpdate(); // some news of another machine while this one starts
  await restarted;
  answer.restart = [attempts.mortal, attempts.slow, two.workers.map(one => one.envId), two.listed.slice(before)];
  const late = { close(reason) { answer.late = reason; } };
  two.server.emit('connection', mortal.channelId, Object.assign(late, { onClose() {}, onError() {} }));
  answer.broken = await submit(['a', 'b'], place => { if (place === 'a') throw new Error('a is broken'); return 'yes'; });
  answer.busy = await submit(['a', 'b'], (place, times) => (times < 4 ? null : 'yes'));
  process.stdout.write(JSON.stringify(answer) + '\n', () => process.exit(0));
})().catch(error => { process.stdout.write(String(error.stack)); process.exit(1); });
