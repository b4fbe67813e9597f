// Faults of NNI 3.0 in the handling of trials and of other machines, mended as its modules are loaded (guard.js requires
// this file). Nothing of NNI on disk is touched.
'use strict';
const crypto = require('crypto'), Module = require('module'), path = require('path');
const { setTimeout: sleep } = require('timers/promises');
const LOOPBACK = '127.0.0.1', WITHOUT_MACHINES = 60_000, SILENT_BEATS = 6;

// 1. Each trial gets its own parameters. NNI gives them to whichever trial asks first; here the trial's id is known, and
//    its parameters are kept under it, before it starts. It goes where the fewest trials are. Waits never spin, and a
//    trial without any machine for a minute is given back as SYS_CANCELED instead of blocking the others for ever.
async function submitTrialJob(form) {
  await this.startDeferred.promise;
  const id = form.id ?? 't' + crypto.randomBytes(4).toString('hex');
  const trial = { id, form, status: 'WAITING', submitTime: Date.now(), workingDirectory: '_unset_', known: false };
  this.trialJobs[id] = trial;
  for (;; await sleep(1000)) {
    if (trial.cancelled) return Object.assign(trial, { status: 'USER_CANCELED', endTime: Date.now() });
    const busy = Object.values(this.trialJobs).filter(other => other.endTime === undefined).map(other => other.envId);
    const load = environment => busy.filter(one => one === environment.id).length;
    const [place] = [...this.environments].sort((one, other) => load(one) - load(other));
    this.deserted = place ? undefined : this.deserted ?? Date.now();
    if (!place && Date.now() - this.deserted < WITHOUT_MACHINES) continue;
    if (!place) return Object.assign(trial, { status: 'SYS_CANCELED', endTime: Date.now() });
    const folder = path.posix.join('environments', place.id, 'trials', id), { paths, args } = global.nni;
    const above = place.host ? `${place.host}:~/nni-experiments/${args.experimentId}` : paths.experimentRoot;
    trial.url = `${above}/${folder}`;
    trial.envId = place.id;
    this.allocatedParameters.set(id, form.hyperParameters.value);
    if (await created(this, place, trial)) return trial;
    trial.envId = undefined;
  }
}
async function created(service, place, trial) { // a worker that dies while it is asked never answers
  const { config, v3 } = service, { id, form } = trial;
  let over = false;
  const gone = async () => { while (!over && service.environments.some(one => one.id === place.id)) await sleep(500); };
  const asked = async () => v3.createTrial(place.id, config.trialCommand, 'trial_code', form.sequenceId, id);
  try { return await Promise.race([asked(), gone()]); }
  catch (error) { console.error(`trial ${id} could not be started:`, error); return null; }
  finally { over = true; }
}
//    How a trial ended is told apart: USER_CANCELED in the page, EARLY_STOPPED by us, SYS_CANCELED lost (it was killed,
//    or its machine is gone).
async function cancelTrialJob(id, early) {
  if (this.trialJobs[id] === undefined) return;
  Object.assign(this.trialJobs[id], { cancelled: true, isEarlyStopped: Boolean(early) });
  await this.v3.stopTrial(id).catch(error => console.error(`trial ${id} could not be stopped:`, error));
}
function mendTrials({ V3asV1 }) {
  const { start } = V3asV1.prototype;
  Object.assign(V3asV1.prototype, { submitTrialJob, cancelTrialJob, start() {
    const { onTrialEnd } = this.v3;
    this.v3.onTrialEnd = callback => onTrialEnd.call(this.v3, (id, ...rest) => {
      callback(id, ...rest);
      const trial = this.trialJobs[id];
      const cancelled = trial.isEarlyStopped ? 'EARLY_STOPPED' : 'USER_CANCELED'; // whatever its exit code is
      if (trial.cancelled) trial.status = cancelled;
      else if (trial.status === 'USER_CANCELED') trial.status = 'SYS_CANCELED';
    });
    return start.call(this);
  } });
}
//    A quick trial reports before NNI has entered it in its books, and NNI drops that; or it ends before its last figures
//    are passed on. Figures wait for the entry, in order, and the end waits for the figures.
function mendMetrics({ NNIManager }) {
  const { onTrialJobMetrics, requestTrialJobsStatus } = NNIManager.prototype;
  NNIManager.prototype.onTrialJobMetrics = function (metric) {
    const early = () => !this.trialJobs.has(metric.id) && this.trainingService.trialJobs?.[metric.id]?.known === false;
    const tell = async () => { while (early()) await sleep(20); return onTrialJobMetrics.call(this, metric); };
    this.told = Promise.resolve(this.told).catch(() => {}).then(tell);
    return this.told;
  };
  NNIManager.prototype.requestTrialJobsStatus = async function () { // called when all that were submitted are entered
    for (const trial of Object.values(this.trainingService.trialJobs ?? {})) trial.known = true;
    for (let told; told !== this.told;) await (told = this.told)?.catch(() => {});
    return requestTrialJobsStatus.call(this);
  };
}
//    The first trial does not wait for a description of this machine, for which Python and NNI would be started.
function mendStart(exports) {
  exports.collectPlatformInfo = async () => ({});
}

// 2. Other machines: a dead one is noticed (ssh and the worker's channel stay silent), an ssh error does not end the
//    manager, and nothing is installed on anybody's machine. Trials are sent to 127.0.0.1, whatever localhost means.
function mendSsh({ Client }) {
  const { connect } = Client.prototype, alive = { keepaliveInterval: 5000, keepaliveCountMax: 3, readyTimeout: 20_000 };
  Client.prototype.connect = function (config) {
    return connect.call(this.on('error', error => console.error('ssh:', error.message)), { ...alive, ...config });
  };
}
function mendInstallation({ Ssh }) {
  const { run } = Ssh.prototype;
  Ssh.prototype.run = async function (command) {
    return command.includes('pip install nni') ? '' : run.call(this, command);
  };
}
function mendHeartbeat({ WsConnection }) {
  const { heartbeat, handlePong } = WsConnection.prototype;
  WsConnection.prototype.handlePong = function () { this.beats = 0; handlePong.call(this); };
  WsConnection.prototype.heartbeat = function () {
    this.beats = (this.beats ?? 0) + 1; // our own channel, __default__, may pause for long: Ctrl-Z
    if (this.beats > SILENT_BEATS && !this.log.name.includes('__default__')) this.ws.terminate();
    else heartbeat.call(this);
  };
}
function mendUrls({ RestManager }) {
  const { getFullUrl } = RestManager.prototype;
  RestManager.prototype.getFullUrl = function (kind, ip, ...parts) {
    return getFullUrl.call(this, kind, ip === 'localhost' ? LOOPBACK : ip, ...parts);
  };
}

const MENDED = {
  'training_service/v3/compat.js': mendTrials,
  'core/nnimanager.js': mendMetrics,
  'trial_keeper/collect_platform_info.js': mendStart,
  'ssh2/lib/index.js': mendSsh,
  'remote_v3/ssh.js': mendInstallation,
  'command_channel/websocket/connection.js': mendHeartbeat,
  'common/globals/rest.js': mendUrls,
};
const compile = Module._extensions['.js'];
Module._extensions['.js'] = (module, filename) => {
  compile(module, filename);
  for (const [end, mend] of Object.entries(MENDED)) if (filename.endsWith('/' + end)) mend(module.exports);
};
