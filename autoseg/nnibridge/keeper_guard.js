// Loaded into NNI's agent on a worker machine (NODE_OPTIONS of the shim, see bundle.py).
'use strict';
const net = require('net');

delete process.env.NODE_OPTIONS; // trials inherit the environment and have nothing to do with this file

// The agent serves its trials over HTTP without a password: on the loopback address only, as its trials are here.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
    if (/^\d+$/.test(String(args[0])) && typeof args[1] !== 'string') {
        args.splice(1, 0, '127.0.0.1');
    } else if (args[0] && args[0].port !== undefined && !args[0].host) {
        args[0] = { ...args[0], host: '127.0.0.1' };
    }
    return listen.apply(this, args);
};

// The end of the agent is the end of its trials, also of one that is still starting and does not look for us yet.
const child_process = require('child_process'), { spawn } = child_process, trials = new Set();
child_process.spawn = function (...args) {
    const trial = spawn.apply(this, args);
    trials.add(trial);
    trial.once('exit', () => trials.delete(trial));
    return trial;
};
process.on('exit', () => trials.forEach(trial => trial.kill('SIGKILL')));
