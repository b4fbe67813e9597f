// 2. Other machines (mend.js requires this file; its head says what it is for). A dead one is noticed (ssh and the worker's
//    channel stay silent), an ssh error does not end the manager, and nothing is installed on anybody's machine. Trials
//    are sent to 127.0.0.1, whatever localhost means.
'use strict';
const LOOPBACK = '127.0.0.1', SILENT_BEATS = 6;
const limits = { start: 60_000 }; // milliseconds until an agent must have started, or taken the code

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

//    One machine that fails is given up and the others go on; NNI would wait for its agent for ever, or stop as a whole,
//    or send trials to an agent that is not there. A worker is in the books while it starts, because its agent is
//    recognised by them, and out of them as soon as that has failed; trials go to workers that have started and have the
//    code. Our Python side reads the line that says who was given up (remote.py).
async function within(work, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${limits.start / 1000} s`)), limits.start);
  });
  try { return await Promise.race([work, late]); } finally { clearTimeout(timer); }
}
function giveUp(service, { user, host, port }, worker, error) {
  if (worker && !service.workers.includes(worker)) return; // one that ended has been started again meanwhile
  const reason = String(error?.message ?? error).split('\n')[0];
  console.error(`given up: ${user}@${host}:${port}: ${reason}`);
  if (!worker) return;
  service.stopWorker(worker, true);
  try { worker.channel?.close('given up'); } catch (failure) { console.error('closing a channel:', failure); }
  try { worker.ssh.disconnect(); } catch (failure) { console.error('closing ssh:', failure); }
}
function mendMachines({ RemoteTrainingServiceV3 }, module) {
  const { createTarball } = module.require('common/tarball'), { launchWorker } = RemoteTrainingServiceV3.prototype;
  Object.assign(RemoteTrainingServiceV3.prototype, {
    async start() {
      this.server.on('connection', (id, channel) => { // an agent that comes back after it was given up
        if (!this.workersByChannel.has(id)) channel.close('given up');
      });
      await this.server.start();
      await Promise.allSettled(this.config.machineList.map(machine => this.launchWorker(machine)));
      const started = this.workers.filter(worker => worker.started);
      if (started.length === 0) throw new Error('no machine is left');
      return started.map(worker => worker.env);
    },
    async launchWorker(machine) {
      const before = new Set(this.workers), launched = launchWorker.call(this, machine);
      const worker = this.workers.find(one => !before.has(one));
      try { await within(launched, "the start of NNI's agent there"); }
      catch (error) { giveUp(this, machine, worker, error); throw error; }
      worker.started = true;
      return worker;
    },
    async uploadDirectory(name, folder) {
      this.code = [name, await createTarball(name, folder)];
      await Promise.all(this.workers.filter(worker => worker.started).map(worker => this.sendCode(worker)));
      if (!this.workers.some(worker => worker.ready)) throw new Error('no machine is left');
    },
    async sendCode(worker) {
      try { await within(worker.upload(...this.code), 'sending the code'); }
      catch (error) { giveUp(this, worker.config, worker, error); return; }
      worker.ready = true;
      this.emitEnvUpdate();
    },
    async restartWorker(old) {
      if (!this.workers.includes(old)) return; // given up, or restarted already
      this.stopWorker(old, true);
      const worker = await this.launchWorker(old.config).catch(() => undefined); // which tells it
      if (worker && this.code) await this.sendCode(worker);
    },
    emitEnvUpdate() {
      const ready = this.workers.filter(worker => worker.ready);
      this.emitter.emit('env_update', ready.map(worker => ({ ...worker.env, host: worker.config.host })));
    },
  });
}

module.exports = {
  limits,
  mended: {
    'ssh2/lib/index.js': mendSsh,
    'remote_v3/ssh.js': mendInstallation,
    'remote_v3/remote.js': mendMachines,
    'command_channel/websocket/connection.js': mendHeartbeat,
    'common/globals/rest.js': mendUrls,
  },
};
