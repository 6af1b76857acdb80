"""The systems that are compared: how each is started, who asks it, and what its processes use.

A worker (workload.hpp) is told over a pipe what to run. Flotilla's members are workers themselves, so its callers are
inside the leader's process, as an application's are; so are LMDB's. Any other's servers are processes of their own,
and its callers the worker's.
"""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

TICKS = os.sysconf('SC_CLK_TCK')
MIB = 1 << 20


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def wait_for_port(port):
    deadline = time.time() + 20
    while time.time() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f'nobody listens on {port}')


def processor_seconds(pid):
    with open(f'/proc/{pid}/stat') as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid):
    """MiB: `peak` and `resident` with pages of mapped files (of LMDB, and of etcd's bbolt), `own` without them."""
    names = {'VmHWM': 'peak', 'VmRSS': 'resident', 'RssAnon': 'own'}
    with open(f'/proc/{pid}/status') as status:
        lines = (line.split() for line in status)
        return {names[words[0][:-1]]: int(words[1]) / 1024 for words in lines if words[0][:-1] in names}


def forget_peak(pid):
    with open(f'/proc/{pid}/clear_refs', 'w') as file:
        file.write('5')


def disk_bytes(directory):
    total = 0
    for path, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


class Worker:
    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def wait_until_ready(self):
        line = self.process.stdout.readline()
        if line.strip() != 'ready':
            raise RuntimeError(f'{self.process.args[0]} did not start')

    def tell(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f'{self.process.args[0]} ended')
        figures = json.loads(line)
        if isinstance(figures, dict) and 'error' in figures:
            raise RuntimeError(f'{self.process.args[0]}: {figures["error"]}')
        return figures

    def ask(self, line):
        self.tell(line)
        return self.answer()

    def run(self, workload, callers, seconds, value, keys, seed=1):
        return with_rate(self.ask(f'run {workload} {callers} {int(seconds * 1000)} {value} {keys} {seed}'))


def with_rate(figures):
    if 'operations' in figures:
        figures['rate'] = figures['operations'] / max(figures['seconds'], 1e-9)
    return figures


class System:
    """One system while it runs. `servers`: the processes that do the work."""
    name = ''
    callers_max = 4096
    in_process = False  # callers are inside a server

    def __init__(self, bin_dir, directory, members):
        self.bin = bin_dir
        self.directory = directory
        self.members = members
        self.servers = []
        self.processes = []
        self.log = open(os.path.join(directory, 'log'), 'w')

    def worker(self, program, *args):
        worker = Worker([os.path.join(self.bin, program), *args], self.log)
        self.processes.append(worker.process)
        return worker

    def server(self, *command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.processes.append(process)
        return process

    def where(self, *names):
        path = os.path.join(self.directory, *names)
        os.makedirs(path, exist_ok=True)
        return path

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()

    def on(self, place):
        """The worker to ask: 'leader' or 'follower'; None where that cannot be asked."""
        return self.client if place == 'leader' else None

    def fill(self, keys, value=100):
        """What it leaves in the page cache is written before anything is measured."""
        figures = self.on('leader').ask(f'fill {keys} {value} 16')
        if figures['failures']:
            raise RuntimeError(f'{self.name}: {figures["failures"]} of the first puts failed')
        os.sync()
        return figures

    def before_reads(self):
        """What whoever runs such a server would do from time to time."""

    def batches(self):
        """Entries and batches that were applied so far, where it says so."""
        return None

    def memory(self):
        each = [memory_of(pid) for pid in self.servers]
        return {name: sum(one[name] for one in each) for name in each[0]}


@contextlib.contextmanager
def started(kind, options, members):
    directory = tempfile.mkdtemp(prefix='flotilla-bench-', dir=options.directory)
    system = kind(options.bin, directory, members)
    try:
        system.start()
        yield system
    finally:
        system.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Flotilla(System):
    name = 'flotilla'
    in_process = True

    def start(self):
        if self.members == 1:
            self.workers = [self.worker('flotilla_worker', '--data', self.where('1'))]
        else:
            ports = [free_port() for _ in range(self.members)]
            self.workers = []
            for i, port in enumerate(ports):
                how = ['--found'] if i == 0 else ['--join', f'127.0.0.1:{ports[0]}']
                self.workers.append(self.worker('flotilla_worker', '--data', self.where(str(i)), '--listen',
                                                f'127.0.0.1:{port}', *how, '--voters', str(self.members)))
        for worker in self.workers:
            worker.wait_until_ready()
        self.servers = [worker.process.pid for worker in self.workers]

    def on(self, place):
        wanted = place == 'leader'
        deadline = time.time() + 20
        while time.time() < deadline:
            for worker in self.workers:
                if worker.ask('leads') == wanted:
                    return worker
            time.sleep(0.05)
        raise RuntimeError(f'no {place}')

    def batches(self):
        report = self.on('leader').ask('report')
        return report['applied_entries'], report['apply']['count']


class Etcd(System):
    name = 'etcd'
    compaction = ()

    def start(self):
        ports = [(free_port(), free_port()) for _ in range(self.members)]
        cluster = ','.join(f'm{i}=http://127.0.0.1:{peer}' for i, (_, peer) in enumerate(ports))
        for i, (client, peer) in enumerate(ports):
            process = self.server(
                'etcd', '--name', f'm{i}', '--data-dir', self.where(str(i)),
                '--listen-client-urls', f'http://127.0.0.1:{client}',
                '--advertise-client-urls', f'http://127.0.0.1:{client}',
                '--listen-peer-urls', f'http://127.0.0.1:{peer}',
                '--initial-advertise-peer-urls', f'http://127.0.0.1:{peer}',
                '--initial-cluster', cluster, '--log-level', 'error',
                '--quota-backend-bytes', str(8 << 30), *self.compaction)  # by default it stops at 2 GiB
            self.servers.append(process.pid)
        self.ports = [client for client, _ in ports]
        self.clients = {}
        self.leader_port()

    @staticmethod
    def post(port, path, **message):
        request = urllib.request.Request(f'http://127.0.0.1:{port}/v3/{path}', data=json.dumps(message).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def leader_port(self):
        deadline = time.time() + 30
        while time.time() < deadline:
            for port in self.ports:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    status = self.post(port, 'maintenance/status')
                    if status.get('leader', '0') != '0' and status['leader'] == status['header']['member_id']:
                        return port
            time.sleep(0.1)
        raise RuntimeError('etcd found no leader')

    def on(self, place):
        leader = self.leader_port()
        ports = [port for port in self.ports if (port == leader) == (place == 'leader')]
        if not ports:
            return None
        if ports[0] not in self.clients:
            client = self.worker('etcd_worker', '--endpoint', f'127.0.0.1:{ports[0]}')
            client.wait_until_ready()
            self.clients[ports[0]] = client
        return self.clients[ports[0]]

    def before_reads(self):
        """A compaction, which by default nobody asks it for. It is in etcd's favour: reads after puts are a fifth to
        three fifths as fast without it, presumably as version 3.4 copies for each what its last commits buffered."""
        leader = self.leader_port()
        revision = self.post(leader, 'maintenance/status')['header']['revision']
        with contextlib.suppress(urllib.error.HTTPError):  # 400: it was compacted there before
            self.post(leader, 'kv/compaction', revision=revision, physical=True)
        time.sleep(0.3)  # its next commit


class CompactedEtcd(Etcd):
    """As it is run for long: it keeps all revisions that no compaction drops."""
    compaction = ('--auto-compaction-retention', '1m')


class Redis(System):
    name = 'redis'

    def start(self):
        port = free_port()
        process = self.server('redis-server', '--port', str(port), '--bind', '127.0.0.1', '--dir', self.where('data'),
                              '--appendonly', 'yes', '--appendfsync', 'always', '--save', '')
        self.servers = [process.pid]
        wait_for_port(port)
        self.client = self.worker('redis_worker', '--port', str(port))
        self.client.wait_until_ready()


class Lmdb(System):
    name = 'lmdb'
    in_process = True
    callers_max = 1024
    flags = ()

    def start(self):
        self.client = self.worker('lmdb_worker', '--data', self.where('data'), *self.flags)
        self.client.wait_until_ready()
        self.servers = [self.client.process.pid]


class FlatLmdb(Lmdb):
    """Not durable; as many puts in a transaction as there are callers."""
    name = 'lmdb_flat'
    callers_max = 4096
    flags = ('--flat', 'true')


class Dqlite(System):
    name = 'dqlite'
    callers_max = 64  # of which one writes

    def start(self):
        addresses = [f'127.0.0.1:{free_port()}' for _ in range(self.members)]
        nodes = [self.worker('dqlite_worker', '--node', str(i + 1), '--address', address, '--data', self.where(str(i)))
                 for i, address in enumerate(addresses)]
        for node in nodes:
            node.wait_until_ready()
        self.servers = [node.process.pid for node in nodes]
        others = [word for i, address in enumerate(addresses) if i > 0 for word in ('--add', f'{i + 1}={address}')]
        self.client = self.worker('dqlite_worker', '--client', addresses[0], *others)
        self.client.wait_until_ready()


SYSTEMS = {1: [Flotilla, Etcd, Redis, Dqlite, Lmdb, FlatLmdb], 3: [Flotilla, Etcd, Dqlite]}
