// Faults of NNI 3.0 in the handling of trials and of other machines, mended as its modules are loaded (guard.js requires
// this file). Nothing of NNI on disk is touched.
'use strict';
const crypto = require('crypto'), fs = require('fs/promises'), Module = require('module'), path = require('path');
const { setTimeout: sleep } = require('timers/promises');
const WITHOUT_MACHINES = 90_000; // milliseconds; an agent that is started again may take 60 s

// 1. Each trial gets its own parameters. NNI gives them to whichever trial asks first; here the trial's id is known, and
//    its parameters are kept under it, before it starts. It goes where the fewest trials are. Waits never spin, and a
//    trial without any machine for so long is given back as SYS_CANCELED instead of blocking the others for ever.
async function submitTrialJob(form) {
  await this.startDeferred.promise;
  const id = form.id ?? 't' + crypto.randomBytes(4).toString('hex');
  const trial = { id, form, status: 'WAITING', submitTime: Date.now(), workingDirectory: '_unset_', known: false };
  this.trialJobs[id] = trial;
  const full = new Set(), broken = new Set(); // where it could not start: no GPU is free just now; an error
  let refused;
  for (;; await sleep(1000)) {
    if (trial.cancelled) return Object.assign(trial, { status: 'USER_CANCELED', endTime: Date.now() });
    const busy = Object.values(this.trialJobs).filter(other => other.endTime === undefined).map(other => other.envId);
    const load = environment => busy.filter(one => one === environment.id).length;
    const able = this.environments.filter(one => !broken.has(one.id));
    if (able.every(one => full.has(one.id))) full.clear();
    const [place] = able.filter(one => !full.has(one.id)).sort((one, other) => load(one) - load(other));
    if (this.environments.length > 0) this.deserted = undefined;
    else this.deserted ??= Date.now();
    refused = place ? undefined : refused ?? Date.now();
    if (!place && Date.now() - (this.deserted ?? refused) < WITHOUT_MACHINES) continue;
    if (!place) return Object.assign(trial, { status: 'SYS_CANCELED', endTime: Date.now() });
    const folder = path.posix.join('environments', place.id, 'trials', id), { paths, args } = global.nni;
    const above = place.host ? `${place.host}:~/nni-experiments/${args.experimentId}` : paths.experimentRoot;
    trial.url = `${above}/${folder}`;
    trial.envId = place.id;
    this.allocatedParameters.set(id, form.hyperParameters.value);
    const started = await created(this, place, trial);
    if (started) return trial;
    (started === undefined ? broken : full).add(place.id);
    trial.envId = undefined;
  }
}
async function created(service, place, trial) { // a worker that dies while it is asked never answers
  const { config, v3 } = service, { id, form } = trial;
  let over = false;
  const gone = async () => { while (!over && service.environments.some(one => one.id === place.id)) await sleep(500); };
  const asked = async () => v3.createTrial(place.id, config.trialCommand, 'trial_code', number(form), id);
  try { return await Promise.race([asked(), gone()]); }
  catch (error) { console.error(`trial ${id} could not be started:`, error); return undefined; }
  finally { over = true; }
}
//    In our own experiments (guard.js) a trial is numbered like its parameters; -1 is one that somebody else has added.
exports.numberedByParameters = false;
function number({ sequenceId, hyperParameters: { value } }) {
  return exports.numberedByParameters ? JSON.parse(value).parameter_id ?? -1 : sequenceId;
}
//    How a trial ended is told apart: USER_CANCELED in the page, EARLY_STOPPED by us, SYS_CANCELED lost (it was killed,
//    or its machine is gone).
async function cancelTrialJob(id, early) {
  if (this.trialJobs[id] === undefined) return;
  Object.assign(this.trialJobs[id], { cancelled: true, isEarlyStopped: Boolean(early) });
  await this.v3.stopTrial(id).catch(error => console.error(`trial ${id} could not be stopped:`, error));
}
//    A file of a trial is one that lies in its folder, wherever links in there lead.
const SHORT = { stdout: 'trial.stdout', stderr: 'trial.stderr' };
async function getTrialFile(id, name) {
  const { experimentRoot } = global.nni.paths, directory = await this.v3.downloadTrialDirectory(id);
  const folder = path.join(await fs.realpath(experimentRoot), path.relative(experimentRoot, directory));
  const file = await fs.realpath(path.join(folder, SHORT[name] ?? name));
  if (!file.startsWith(folder + path.sep)) throw new Error(`${name} is not in the folder of trial ${id}`);
  return fs.readFile(file, name === 'model.onnx' ? undefined : 'utf8');
}
function mendTrials({ V3asV1 }) {
  const { start } = V3asV1.prototype;
  Object.assign(V3asV1.prototype, { submitTrialJob, cancelTrialJob, getTrialFile, start() {
    const { onTrialEnd, onRequestParameter } = this.v3;
    this.v3.onRequestParameter = () => onRequestParameter.call(this.v3, id => { // as often as they are asked for
      const parameters = this.allocatedParameters.get(id); // somebody else may have asked, and taken the answer
      if (parameters === undefined) return;
      this.v3.sendParameter(id, parameters).catch(error => console.error(`trial ${id} gets no parameters:`, error));
    });
    this.v3.onTrialEnd = callback => onTrialEnd.call(this.v3, (id, ...rest) => {
      callback(id, ...rest);
      this.allocatedParameters.delete(id);
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

//    Trials at a time are a whole number: the loop that starts trials is lost, or waits for ever, with anything else.
function mendLimits(exports) {
  const { createRestHandler } = exports;
  exports.createRestHandler = () => {
    const router = createRestHandler();
    router.put('/experiment', ({ body, query }, answer, next) => {
      const slots = body?.params?.trialConcurrency;
      const right = Number.isInteger(slots) && slots >= 1 && slots <= 1024;
      if (right || query.update_type !== 'TRIAL_CONCURRENCY') next();
      else answer.status(400).send({ error: 'trialConcurrency must be a whole number from 1 to 1024' });
    });
    router.stack.unshift(router.stack.pop()); // before NNI's own
    return router;
  };
}

// 2. Other machines: see mend_remote.js.
const MENDED = {
  'training_service/v3/compat.js': mendTrials,
  'core/nnimanager.js': mendMetrics,
  'trial_keeper/collect_platform_info.js': mendStart,
  'rest_server/restHandler.js': mendLimits,
  ...require('./mend_remote.js').mended,
};
const compile = Module._extensions['.js'];
Module._extensions['.js'] = (module, filename) => {
  compile(module, filename);
  for (const [end, mend] of Object.entries(MENDED)) if (filename.endsWith('/' + end)) mend(module.exports, module);
};
