#!/usr/bin/env python3
"""The same work for us and for our peers, one after the other, on this machine's loopback and disk.

A worker (workload.hpp) is told over a pipe what to run. Flotilla's members are workers themselves, so its callers are
inside the leader's process, as an application's are; a peer's servers are processes of their own, and its callers the
worker's. Each system is started anew for each round, filled with the keys, runs all rows, and is ended.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

KEYS = 100_000
TICKS = os.sysconf('SC_CLK_TCK')


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def processor_seconds(pid):
    with open(f'/proc/{pid}/stat') as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_memory(pid):
    """MiB. Pages of mapped files count: of LMDB, and of etcd's bbolt."""
    with open(f'/proc/{pid}/status') as status:
        for line in status:
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) / 1024
    return 0


class Worker:
    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def wait_until_ready(self):
        line = self.process.stdout.readline()
        if line.strip() != 'ready':
            raise RuntimeError(f'{self.process.args[0]} did not start')

    def ask(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f'{self.process.args[0]} ended: {line}')
        return json.loads(answer)


class System:
    """One system while it runs. `servers`: who does the work; `client`: who asks, if that is a process of its own."""
    name = ''
    callers_max = 4096

    def __init__(self, bin_dir, directory, members):
        self.bin = bin_dir
        self.directory = directory
        self.members = members
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
        """The worker to ask: 'leader' or 'follower'."""
        return self.client

    @property
    def client_pid(self):
        return self.client.process.pid


class Flotilla(System):
    name = 'flotilla'

    def start(self):
        members = self.members
        if members == 1:
            self.workers = [self.worker('flotilla_worker', '--data', self.where('1'))]
        else:
            ports = [free_port() for _ in range(members)]
            self.workers = []
            for i, port in enumerate(ports):
                how = ['--found'] if i == 0 else ['--join', f'127.0.0.1:{ports[0]}']
                self.workers.append(self.worker('flotilla_worker', '--data', self.where(str(i)), '--listen',
                                                f'127.0.0.1:{port}', *how, '--voters', str(members)))
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

    @property
    def client_pid(self):
        return None


class Etcd(System):
    name = 'etcd'

    def start(self):
        ports = [(free_port(), free_port()) for _ in range(self.members)]
        cluster = ','.join(f'm{i}=http://127.0.0.1:{peer}' for i, (_, peer) in enumerate(ports))
        self.servers = []
        for i, (client, peer) in enumerate(ports):
            process = self.server(
                'etcd', '--name', f'm{i}', '--data-dir', self.where(str(i)),
                '--listen-client-urls', f'http://127.0.0.1:{client}',
                '--advertise-client-urls', f'http://127.0.0.1:{client}',
                '--listen-peer-urls', f'http://127.0.0.1:{peer}',
                '--initial-advertise-peer-urls', f'http://127.0.0.1:{peer}',
                '--initial-cluster', cluster, '--log-level', 'error')
            self.servers.append(process.pid)
        leader = self.find_leader([client for client, _ in ports])
        self.client = self.worker('etcd_worker', '--endpoint', f'127.0.0.1:{leader}')
        self.client.wait_until_ready()
        self.other = None
        others = [client for client, _ in ports if client != leader]
        if others:
            self.other = self.worker('etcd_worker', '--endpoint', f'127.0.0.1:{others[0]}')
            self.other.wait_until_ready()

    @staticmethod
    def find_leader(ports):
        import urllib.request
        deadline = time.time() + 30
        while time.time() < deadline:
            for port in ports:
                try:
                    request = urllib.request.Request(f'http://127.0.0.1:{port}/v3/maintenance/status', data=b'{}')
                    with urllib.request.urlopen(request, timeout=2) as answer:
                        status = json.load(answer)
                    if status.get('leader', '0') != '0' and status['leader'] == status['header']['member_id']:
                        return port
                except (OSError, ValueError, KeyError):
                    pass
            time.sleep(0.1)
        raise RuntimeError('etcd found no leader')

    def on(self, place):
        return self.client if place == 'leader' else self.other


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
    flat = False

    def start(self):
        self.client = self.worker('lmdb_worker', '--data', self.where('data'), '--flat', str(self.flat).lower())
        self.client.wait_until_ready()
        self.servers = [self.client.process.pid]

    @property
    def client_pid(self):
        return None


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

    def on(self, place):
        return self.client if place == 'leader' else None


def wait_for_port(port):
    deadline = time.time() + 20
    while time.time() < deadline:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f'nobody listens on {port}')


SYSTEMS = {1: [Flotilla, Etcd, Redis, Dqlite, Lmdb], 3: [Flotilla, Etcd, Dqlite]}


class Row:
    def __init__(self, workload, callers, value=100, place='leader', once=False):
        self.workload, self.callers, self.value, self.place, self.once = workload, callers, value, place, once

    def __str__(self):
        extra = '' if self.value == 100 else f', {self.value >> 10} KiB'
        return f'{self.workload}{extra}' + (' on a follower' if self.place == 'follower' else '')

    @property
    def key(self):
        return f'{self}/{self.callers}'


def rows(members, quick):
    callers = [1, 64, 256] if quick else [1, 16, 64, 256]
    all_rows = [Row('put', n) for n in callers]
    if members == 3:
        all_rows += [Row('put', n, place='follower') for n in ([1] if quick else [1, 64])]
    all_rows += [Row('get', 64), Row('get_local', 1)]
    if members == 3:
        all_rows += [Row('get', 64, place='follower')]
    if not quick:
        all_rows += [Row('put', 64, value=1 << 10, once=True), Row('put', 64, value=16 << 10, once=True),
                     Row('put_ten', 64, once=True), Row('cas', 64), Row('get', 1), Row('get_local', 64),
                     Row('scan', 1), *[Row(f'ycsb_{x}', 64) for x in 'abcf']]
    return all_rows


def measure(system, row, seconds, seed):
    worker = system.on(row.place)
    if worker is None or row.callers > system.callers_max:
        return None
    client = system.client_pid and worker.process.pid
    before = [processor_seconds(pid) for pid in system.servers]
    client_before = processor_seconds(client) if client else 0
    figures = worker.ask(f'run {row.workload} {row.callers} {int(seconds * 1000)} {row.value} {KEYS} {seed}')
    if figures.get('unsupported'):
        return None
    if 'error' in figures:
        raise RuntimeError(f'{system.name}: {figures["error"]}')
    spent = sum(processor_seconds(pid) for pid in system.servers) - sum(before)
    thousands = max(figures['all_operations'], 1) / 1000
    figures['rate'] = figures['operations'] / figures['seconds']
    figures['cpu'] = spent / thousands
    figures['client_cpu'] = (processor_seconds(client) - client_before) / thousands if client else None
    figures['memory'] = sum(peak_memory(pid) for pid in system.servers)
    return figures


def run_round(kind, members, number, options, results):
    directory = tempfile.mkdtemp(prefix='flotilla-compare-', dir=options.directory)
    system = kind(options.bin, directory, members)
    try:
        system.start()
        filled = system.on('leader').ask(f'fill {KEYS} 100 16')
        if filled['failures']:
            raise RuntimeError(f'{system.name}: {filled["failures"]} of the first puts failed')
        for row in rows(members, options.quick):
            if row.once and number > 0:
                continue
            if options.rows and row.workload not in options.rows:
                continue
            figures = measure(system, row, options.seconds, number + 1)
            if figures is None:
                continue
            if figures['failures']:
                print(f'  {system.name}: {row.key}: {figures["failures"]} failed', file=sys.stderr)
            results.setdefault((members, row.key), {}).setdefault(kind.name, []).append(figures)
            if options.verbose:
                print(f'  {members} {kind.name:<9} {row!s:<24} {row.callers:>4} {figures["rate"]:>10.0f}/s  '
                      f'p50 {figures["p50"]:>8.0f}  p99 {figures["p99"]:>8.0f}  cpu {figures["cpu"]:.4f}', flush=True)
    finally:
        system.stop()
        shutil.rmtree(directory, ignore_errors=True)


STAGES = [('queue', 'caller to loop thread'), ('log_wait', 'waiting for the group before'),
          ('log_write', 'encoding and writing a block'), ('log_sync', 'syncing it'),
          ('quorum', 'append to commit, of which the two above'), ('apply_wait', 'waiting for the batch before'),
          ('apply', 'commands and LMDB\'s commit'), ('completion', 'telling callers'), ('command', 'the whole command')]


def limits(options):
    """The floor on this machine, and the distance to it, stage by stage."""
    directory = tempfile.mkdtemp(prefix='flotilla-limits-', dir=options.directory)
    try:
        floor = json.loads(subprocess.run([os.path.join(options.bin, 'machine'), '--directory', directory], check=True,
                                          capture_output=True, text=True).stdout)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print('the floor, medians in microseconds')
    for name, what in [('sync', 'write 4 KiB and fdatasync'), ('sync_64k', 'the same with 64 KiB'),
                       ('sync_three', 'the same, 4 KiB, three processes at once'),
                       ('round_trip', 'loopback round trip, 64 B'), ('wake_up', 'waking a thread')]:
        print(f'  {what:<44}{floor[name]:>10.1f}')
    floor.update(lmdb_floor(options))
    floor['caller_ns'] = caller_cost(options)
    print(f'  LMDB without syncs, puts a second in batches of 256: {floor["flat"]:.0f}; gets a second: {floor["gets"]:.0f}')
    print(f'  a caller\'s own work, nanoseconds an operation: {floor["caller_ns"]:.0f}')
    for members in options.members:
        for callers in (1, 64, 256):
            stages(options, members, callers, floor)


def lmdb_floor(options):
    found = {}
    for flat, callers, row, name in ((True, 256, 'put', 'flat'), (False, 1, 'get', 'gets')):
        directory = tempfile.mkdtemp(prefix='flotilla-limits-', dir=options.directory)
        system = Lmdb(options.bin, directory, 1)
        system.flat = flat
        try:
            system.start()
            system.client.ask(f'fill {KEYS} 100 1')
            figures = system.client.ask(f'run {row} {callers} {int(options.seconds * 1000)} 100 {KEYS} 1')
            found[name] = figures['operations'] / figures['seconds']
        finally:
            system.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return found


def caller_cost(options):
    """Of one that asks nobody."""
    worker = Worker([os.path.join(options.bin, 'null_worker')], None)
    worker.wait_until_ready()
    figures = worker.ask(f'run get_local 1 {int(options.seconds * 1000)} 100 {KEYS} 1')
    worker.process.stdin.close()
    worker.process.wait()
    return 1e9 * figures['seconds'] / figures['operations']


def stages(options, members, callers, floor):
    directory = tempfile.mkdtemp(prefix='flotilla-limits-', dir=options.directory)
    system = Flotilla(options.bin, directory, members)
    try:
        system.start()
        worker = system.on('leader')
        worker.ask(f'fill {KEYS} 100 16')
        before = worker.ask('report')
        figures = worker.ask(f'run put {callers} {int(options.seconds * 1000)} 100 {KEYS} 1')
        after = worker.ask('report')
    finally:
        system.stop()
        shutil.rmtree(directory, ignore_errors=True)
    rate = figures['operations'] / figures['seconds']
    sync = floor['sync'] if members == 1 else floor['sync_three']
    best = sync if members == 1 else floor['round_trip'] + sync
    print(f'\n{members} member{"s" if members > 1 else ""}, {callers} caller{"s" if callers > 1 else ""}: {rate:.0f} puts/s, '
          f'p50 {figures["p50"]:.0f}, p99 {figures["p99"]:.0f}; p50 is {figures["p50"] / best:.2f}x '
          + ('a durable write' if members == 1 else '(round trip + durable write of three)'))
    print(f'  {"stage":<52}{"times":>10}{"per put":>10}{"mean us":>10}{"us per put":>12}')
    puts = after['command']['count'] - before['command']['count']
    for name, what in STAGES:
        times = after[name]['count'] - before[name]['count']
        spent = after[name]['mean'] * after[name]['count'] - before[name]['mean'] * before[name]['count']
        print(f'  {what:<52}{times:>10}{times / max(puts, 1):>10.3f}{spent / max(times, 1):>10.1f}'
              f'{spent / max(puts, 1):>12.2f}')


def median(list_of_figures, name):
    values = [figures[name] for figures in list_of_figures if figures[name] is not None]
    return statistics.median(values) if values else None


def report(results):
    for members in sorted({members for members, _ in results}):
        print(f'\n{members} member{"s" if members > 1 else ""}: medians [least-most]; latencies in microseconds, in '
              'brackets corrected for coordinated omission; CPU seconds per 1,000 operations, the client\'s apart; MiB')
        print(f'{"":<24}{"callers":>8}  {"":<9}{"per second":>28}{"to us":>8}{"p50":>9}{"p99":>18}{"p99.9":>18}'
              f'{"CPU":>9}{"client":>9}{"memory":>9}')
        for (of, key), systems in results.items():
            if of != members:
                continue
            row, callers = key.rsplit('/', 1)
            ours = median(systems['flotilla'], 'rate') if 'flotilla' in systems else None
            for name, figures in systems.items():
                rates = [f['rate'] for f in figures]
                rate = statistics.median(rates)
                spread = f'{rate:.0f} [{min(rates):.0f}-{max(rates):.0f}]'
                ratio = f'{rate / ours:.2f}' if ours else ''
                client = median(figures, 'client_cpu')
                p99 = f'{median(figures, "p99"):.0f} ({median(figures, "p99_corrected"):.0f})'
                p999 = f'{median(figures, "p999"):.0f} ({median(figures, "p999_corrected"):.0f})'
                print(f'{row:<24}{callers:>8}  {name:<9}{spread:>28}{ratio:>8}{median(figures, "p50"):>9.0f}{p99:>18}'
                      f'{p999:>18}{median(figures, "cpu"):>9.4f}{"-" if client is None else f"{client:.4f}":>9}'
                      f'{median(figures, "memory"):>9.0f}')


def plot(results, directory):
    """throughput-N.svg: operations per second over callers. latency-N.svg: p50 and p99 over operations per second."""
    os.makedirs(directory, exist_ok=True)
    for members in sorted({members for members, _ in results}):
        lines = {}
        for (of, key), systems in results.items():
            row, callers = key.rsplit('/', 1)
            if of != members or row != 'put':
                continue
            for name, figures in systems.items():
                lines.setdefault(name, []).append(
                    (int(callers), median(figures, 'rate'), median(figures, 'p50') / 1000, median(figures, 'p99') / 1000))
        if not lines:
            continue
        data = ''.join(f'${name} << END\n' + '\n'.join(' '.join(map(str, point)) for point in sorted(points)) + '\nEND\n'
                       for name, points in lines.items())
        common = 'set terminal svg size 720,440 font "sans,11"\nset grid\nset logscale xy\nset key left top\n' + data
        puts = f'durable puts, {members} member{"s" if members > 1 else ""}'
        throughput = ', '.join(f'${name} using 1:2 with linespoints title "{name}"' for name in lines)
        latency = ', '.join(f'${name} using 2:3 with linespoints title "{name}, p50", '
                            f'${name} using 2:4 with linespoints dashtype 2 title "{name}, p99"' for name in lines)
        script = (f'set output "{directory}/throughput-{members}.svg"\n{common}set title "{puts}"\n'
                  f'set xlabel "callers"\nset ylabel "per second"\nplot {throughput}\n'
                  f'set output "{directory}/latency-{members}.svg"\n'
                  f'set xlabel "per second"\nset ylabel "milliseconds"\nplot {latency}\n')
        subprocess.run(['gnuplot'], input=script, text=True, check=True)


def arguments():
    parser = argparse.ArgumentParser(prog='./dev bench', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='fewer rows, one round, 2 s each: under 5 minutes')
    parser.add_argument('--limits', action='store_true',
                        help='what the machine can do at best, and where our time goes, stage by stage')
    parser.add_argument('--rounds', type=int, help='of each system (default 3)')
    parser.add_argument('--seconds', type=float, help='each row runs so long (default 3)')
    parser.add_argument('--members', type=int, action='append', choices=sorted(SYSTEMS), help='only these')
    parser.add_argument('--systems', help='only these, comma between: flotilla,etcd,redis,dqlite,lmdb')
    parser.add_argument('--rows', help='only these workloads, comma between')
    parser.add_argument('--json', metavar='FILE', help='write all figures of all runs there')
    parser.add_argument('--plot', metavar='DIRECTORY', help='draw throughput and latency as SVG files there')
    parser.add_argument('--directory', default=tempfile.gettempdir(), help='the disk that is measured')
    parser.add_argument('--bin', required=True, help=argparse.SUPPRESS)
    parser.add_argument('--verbose', action='store_true', help='print each run when it ends')
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (2 if options.quick else 3)
    options.members = options.members or sorted(SYSTEMS)
    options.systems = options.systems and options.systems.split(',')
    options.rows = options.rows and options.rows.split(',')
    return options


def main():
    options = arguments()
    if options.limits:
        return limits(options)
    results = {}
    begin = time.time()
    for number in range(options.rounds):
        for members in options.members:
            for kind in SYSTEMS[members]:
                if options.systems and kind.name not in options.systems:
                    continue
                print(f'{time.time() - begin:5.0f} s  round {number + 1} of {options.rounds}: {kind.name}, {members}',
                      file=sys.stderr, flush=True)
                run_round(kind, members, number, options, results)
    report(results)
    if options.plot:
        plot(results, options.plot)
    if options.json:
        with open(options.json, 'w') as out:
            json.dump([{'members': members, 'row': key, 'system': name, 'runs': figures}
                       for (members, key), systems in results.items() for name, figures in systems.items()], out, indent=1)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
