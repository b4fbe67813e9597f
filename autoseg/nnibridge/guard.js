// Loaded into NNI's manager (node --require guard.js main.js) before anything else. NNI 3.0 listens on every interface,
// obeys whoever can reach it, and outlives its parent. The environment says who we are: AUTOSEG_PARENT, only for
// machines elsewhere AUTOSEG_BIND, and, for an experiment of our own, AUTOSEG_TOKEN_FD: the token comes through that
// pipe, because an environment can be read in /proc. Faults in NNI's handling of trials are mended in mend.js.
'use strict';
const fs = require('fs'), http = require('http'), net = require('net'), { pipeline } = require('stream');
const mended = require('./mend.js');
const LOOPBACK = '127.0.0.1';
const { AUTOSEG_BIND: address, AUTOSEG_PARENT: parent, AUTOSEG_TOKEN_FD: pipe } = process.env;
const bind = address === LOOPBACK ? undefined : address; // where every server is already
const mainPort = Number(process.argv[process.argv.indexOf('--port') + 1]);
const OURS = ['AUTOSEG_BIND', 'AUTOSEG_PARENT', 'AUTOSEG_TOKEN_FD', 'NODE_OPTIONS']; // not for what we start
for (const name of OURS) delete process.env[name];
const buffer = Buffer.alloc(64), token = pipe && buffer.toString('latin1', 0, fs.readSync(Number(pipe), buffer)).trim();
if (token === '') process.exit(1); // whoever starts us is gone
mended.numberedByParameters = token !== undefined;

// 1. Loopback only. AUTOSEG_BIND adds one more address, for workers on other machines, by passing bytes on.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  const [options, callback] = net._normalizeArgs(args);
  if (options.path !== undefined || options.fd !== undefined) return listen.apply(this, args); // no network
  this.once('listening', () => {
    const { port } = this.address();
    console.log(`listening on ${LOOPBACK}:${port}`); // our Python side waits for this line
    if (!bind) return;
    const proxy = net.createServer(client => pipeline(client, net.connect(port, LOOPBACK), client, () => {}));
    proxy.on('error', error => { console.error(`cannot listen on ${bind}:${port}:`, error.message); process.exit(1); });
    listen.call(proxy, { port, host: bind });
    this.once('close', () => proxy.close());
  });
  return listen.call(this, { ...options, port: Number(options.port) || 0, host: LOOPBACK }, callback);
};

// 2. Files. NNI joins what a request names to a folder, after Express has decoded it: '..%2f' leads anywhere. No path of
//    a request goes up, however often it is encoded, and of a trial's files only these are given out (mend.js looks
//    where they are). Text that cannot be decoded, or is encoded again and again, is nothing that the page asks for.
const TRIAL_FILE = /^\/api\/v1\/nni\/trial-file\/\w+\/(stdout|stderr|trial\.(log|stdout|stderr)|model\.onnx)\/?$/i;
function strange(url) {
  let path = url.split('?')[0];
  for (let round = 0, before; path !== before; round++) {
    before = path;
    try { path = decodeURIComponent(path); } catch { return true; }
    if (round > 3) return true;
  }
  return /(^|\/)\.\.(\/|$)|[\0\\]/.test(path) || (/trial-file/i.test(path) && !TRIAL_FILE.test(path));
}

// 3. Who may do what. Web pages of other sites are kept out (a name that is made to point here, a foreign Origin); what
//    starts programs or adds trials needs the token, which only our Python side has. Reading, cancelling and the
//    channels of trials and workers stay open, for the page and the trials have no token. Of the experiment's limits the
//    page may change how many trials run at a time alone: a limit on their number would have the run wait for ever.
const OPEN = new RegExp('^(PUT /env/.+|PUT /api/v1/nni/experiment/?\\?update_type=TRIAL_CONCURRENCY$'
  + '|DELETE /api/v1/nni/(experiment|trial-jobs/[^/?]+)/?)$', 'i');
function refused({ headers, method, url }) {
  const host = headers.host ?? '', name = host.replace(/:\d*$/, '').replace(/^\[|\]$/g, ''), place = url.split('?')[0];
  if (name !== 'localhost' && name !== bind && !net.isIP(name)) return true;
  if (headers.origin !== undefined && headers.origin.split('://')[1] !== host) return true;
  if (headers['x-autoseg-token'] === token) return false;
  if (headers.upgrade !== undefined) return !/^\/platform\//i.test(place);
  return !['GET', 'HEAD', 'OPTIONS'].includes(method) && !OPEN.test(`${method} ${url}`);
}
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, answer, ...rest) {
  const asked = event === 'request' || event === 'upgrade';
  const no = asked && (strange(request.url) || (this.address()?.port === mainPort && refused(request)));
  if (!no) return emit.call(this, event, request, answer, ...rest);
  if (event === 'request') answer.writeHead(403, { 'content-type': 'text/plain' }).end('refused by autoseg\n');
  else answer.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n');
  return true;
};
const close = http.Server.prototype.close; // node 18 waits for connections that a browser keeps open for later
http.Server.prototype.close = function (...args) { close.apply(this, args); this.closeIdleConnections(); return this; };

// 4. The end of the parent, whatever killed it, is the end of the manager and of its trials (one process group).
const watch = setInterval(() => {
  if (process.ppid === Number(parent)) return;
  clearInterval(watch);
  process.on('exit', () => process.kill(-process.pid, 'SIGKILL')); // whoever is left of the group
  process.kill(process.pid, 'SIGTERM'); // NNI's own way out: trials are cancelled, the database is closed
  setTimeout(() => process.exit(1), 4000);
}, 500).unref();
