#!/usr/bin/env python3
"""The same work for us and for our peers, one after the other, on this machine's loopback and disk.

Each system is started anew for each round, filled with the keys, runs all rows, and is ended.
"""
import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import plots
import studies
from systems import SYSTEMS, forget_peak, processor_seconds, started, with_rate


class Row:
    def __init__(self, workload, callers, value=100, place='leader', once=False, only=None):
        self.workload, self.callers, self.value, self.place = workload, callers, value, place
        self.once, self.only = once, only

    def __str__(self):
        extra = '' if self.value == 100 else f', {self.value >> 10} KiB'
        return f'{self.workload}{extra}' + (' on a follower' if self.place == 'follower' else '')

    @property
    def key(self):
        return f'{self}/{self.callers}'

    @property
    def reads(self):
        return self.workload.startswith(('get', 'scan', 'ycsb'))


def rows(members, quick):
    callers = [1, 64, 256] if quick else [1, 16, 64, 256]
    all_rows = [Row('put', n) for n in callers]
    if members == 3:
        all_rows += [Row('put', n, place='follower') for n in ([1] if quick else [1, 64])]
    all_rows += [Row('get', 64), Row('get_local', 1)]
    if members == 3:
        all_rows += [Row('get', 64, place='follower')]
    # Three members of dqlite need minutes for it.
    catalogue = Row('catalogue', 64, once=True, only=('flotilla', 'etcd') if quick or members == 3 else None)
    if quick:
        return all_rows + [catalogue]
    # Last what leaves other values than the rows before expect.
    return all_rows + [Row('put_ten', 64, once=True), Row('cas', 64), Row('get', 1), Row('get_local', 64),
                       Row('scan', 1), *[Row(f'ycsb_{x}', 64) for x in 'abcf'], catalogue,
                       Row('put', 64, value=1 << 10, once=True), Row('put', 64, value=16 << 10, once=True)]


class Catalogue:
    """Debian's package records, as workers load them."""

    def __init__(self, options):
        self.path = os.path.join(options.scratch, 'records')
        source = os.path.join(options.scratch, 'packages')
        with open(source, 'wb') as out:
            for name in [options.packages] if options.packages else self.found():
                out.write(self.read(name) + b'\n')
        written = subprocess.run([os.path.join(options.bin, 'records'), source, self.path], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout.split()
        self.records, self.bytes = int(written[0]), int(written[1])
        os.remove(source)

    @staticmethod
    def found():
        """What apt has of archives; else what dpkg has installed."""
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            names = subprocess.run(['apt-get', 'indextargets', '--format', '$(FILENAME)', 'Created-By: Packages'],
                                   check=True, capture_output=True, text=True).stdout.split()
            if names:
                return names
        return ['/var/lib/dpkg/status']

    @staticmethod
    def read(name):
        if os.path.splitext(name)[1] in ('.lz4', '.xz', '.gz', '.bz2', '.zst'):
            return subprocess.run(['/usr/lib/apt/apt-helper', 'cat-file', name], check=True, stdout=subprocess.PIPE).stdout
        with open(name, 'rb') as file:
            return file.read()


def measure(system, row, options, seed):
    worker = system.on(row.place)
    if worker is None or row.callers > system.callers_max:
        return None
    if row.reads:
        system.before_reads()
    for pid in system.servers:
        forget_peak(pid)
    client = None if system.in_process else worker.process.pid
    batches = system.batches()
    before = [processor_seconds(pid) for pid in system.servers]
    client_before = processor_seconds(client) if client else 0
    if row.workload == 'catalogue':
        figures = with_rate(worker.ask(f'load {options.catalogue.path} {row.callers}'))
    else:
        figures = worker.run(row.workload, row.callers, options.seconds, row.value, options.keys, seed)
    if figures.get('unsupported'):
        return None
    spent = sum(processor_seconds(pid) for pid in system.servers) - sum(before)
    thousands = max(figures['all_operations'], 1) / 1000
    figures['cpu'] = spent / thousands
    figures['client_cpu'] = (processor_seconds(client) - client_before) / thousands if client else None
    figures['batch'] = None
    if batches:
        entries, count = (now - then for now, then in zip(system.batches(), batches))
        figures['batch'] = entries / count if count else None
    memory = system.memory()
    figures['memory'], figures['own_memory'] = memory['peak'], memory['own']
    return figures


def run_round(kind, members, number, options, results):
    with started(kind, options, members) as system:
        system.fill(options.keys)
        for row in rows(members, options.quick):
            if (row.once and number > 0) or (row.only and kind.name not in row.only):
                continue
            if options.rows and row.workload not in options.rows:
                continue
            figures = measure(system, row, options, number + 1)
            if figures is None:
                continue
            if figures['failures']:
                print(f'  {system.name}: {row.key}: {figures["failures"]} failed', file=sys.stderr)
            results[members, row.key].setdefault(kind.name, []).append(figures)
            if options.verbose:
                print(f'  {members} {kind.name:<9} {row!s:<24} {row.callers:>4} {figures["rate"]:>10.0f}/s  '
                      f'p50 {figures["p50"]:>8.1f}  p99 {figures["p99"]:>8.1f}  cpu {figures["cpu"]:.4f}', flush=True)


def median(list_of_figures, name):
    values = [figures[name] for figures in list_of_figures if figures[name] is not None]
    return statistics.median(values) if values else None


def micro(value):
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}'


def optional(value, digits):
    return '-' if value is None else f'{value:.{digits}f}'


def report(results, options):
    for members in sorted({members for members, _ in results}):
        print(f'\n{members} member{"s" if members > 1 else ""}, {options.keys} keys: medians [least-most]; latencies in '
              'microseconds, in brackets corrected for coordinated omission; CPU seconds per 1,000 operations, the '
              'client\'s apart; MiB: the most that was resident meanwhile, mapped files included, and what of it was no '
              'file\'s at the end; entries in a batch that was applied')
        print(f'{"":<24}{"callers":>8}  {"":<9}{"per second":>28}{"to us":>8}{"p50":>9}{"p99":>18}{"p99.9":>18}'
              f'{"CPU":>9}{"client":>9}{"memory":>8}{"own":>7}{"batch":>8}')
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
                p99 = f'{micro(median(figures, "p99"))} ({micro(median(figures, "p99_corrected"))})'
                p999 = f'{micro(median(figures, "p999"))} ({micro(median(figures, "p999_corrected"))})'
                print(f'{row:<24}{callers:>8}  {name:<9}{spread:>28}{ratio:>8}{micro(median(figures, "p50")):>9}{p99:>18}'
                      f'{p999:>18}{median(figures, "cpu"):>9.4f}{optional(median(figures, "client_cpu"), 4):>9}'
                      f'{median(figures, "memory"):>8.0f}{median(figures, "own_memory"):>7.0f}'
                      f'{optional(median(figures, "batch"), 1):>8}')
    for (members, key), systems in results.items():
        if key.startswith('catalogue'):
            catalogue = options.catalogue
            print(f'\nthe catalogue, {catalogue.records} records of {catalogue.bytes / 1e6:.1f} MB, {members} '
                  f'member{"s" if members > 1 else ""}, seconds for all: '
                  + ', '.join(f'{name} {median(figures, "seconds"):.2f}' for name, figures in systems.items()))


def plot(results, directory):
    """throughput-N.svg: operations per second over callers. latency-N.svg: p50 and p99 over operations per second."""
    for members in sorted({members for members, _ in results}):
        throughput, latency = {}, {}
        for (of, key), systems in results.items():
            row, callers = key.rsplit('/', 1)
            if of != members or row != 'put':
                continue
            for name, figures in systems.items():
                rate = median(figures, 'rate')
                throughput.setdefault(name, []).append((int(callers), rate))
                for part in ('p50', 'p99'):
                    latency.setdefault(f'{name}, {part}', []).append((rate, median(figures, part) / 1000))
        if throughput:
            title = f'puts, {members} member{"s" if members > 1 else ""}'
            plots.curves(f'{directory}/throughput-{members}.svg', title, 'callers', 'per second', throughput, 'xy')
            plots.curves(f'{directory}/latency-{members}.svg', title, 'per second', 'milliseconds', latency, 'xy')


def compare(options):
    results = {(members, row.key): {} for members in options.members for row in rows(members, options.quick)}
    failures = 0
    begin = time.time()
    if not options.rows or 'catalogue' in options.rows:
        options.catalogue = Catalogue(options)
    for number in range(options.rounds):
        for members in options.members:
            for kind in SYSTEMS[members]:
                if options.systems and kind.name not in options.systems:
                    continue
                print(f'{time.time() - begin:5.0f} s  round {number + 1} of {options.rounds}: {kind.name}, {members}',
                      file=sys.stderr, flush=True)
                try:
                    run_round(kind, members, number, options, results)
                except RuntimeError as error:  # the others' figures are worth having
                    failures += 1
                    print(f'  {error}', file=sys.stderr)
    results = {key: systems for key, systems in results.items() if systems}
    report(results, options)
    if options.plot:
        plot(results, options.plot)
    studies.save(options, [{'members': members, 'row': key, 'system': name, 'runs': figures}
                           for (members, key), systems in results.items() for name, figures in systems.items()])
    return 1 if failures else 0


def arguments():
    parser = argparse.ArgumentParser(prog='./dev bench', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--quick', action='store_true', help='fewer rows, one round, 2 s each: under 5 minutes')
    what.add_argument('--limits', action='store_true',
                      help='what the machine can do at best, and where our time goes, stage by stage')
    what.add_argument('--memory', action='store_true',
                      help='three members of us and of etcd, 1 M keys, 64 callers of puts: memory and disk each minute')
    what.add_argument('--scaling', action='store_true',
                      help='us alone, over the number of keys, members and callers and the size of values')
    parser.add_argument('--rounds', type=int, help='of each system (default 3)')
    parser.add_argument('--seconds', type=float, help='each row runs so long (default 3)')
    parser.add_argument('--minutes', type=float, default=10, help='of --memory (default 10)')
    parser.add_argument('--keys', type=int, help='that a system is filled with (default 100,000; --memory: 1,000,000; '
                        '--scaling: at most so many, 10,000,000)')
    parser.add_argument('--members', type=int, action='append', choices=sorted(SYSTEMS), help='only these')
    names = ','.join(kind.name for kind in SYSTEMS[1])
    parser.add_argument('--systems', help=f'only these, comma between: {names}')
    parser.add_argument('--rows', help='only these workloads, comma between')
    parser.add_argument('--packages', metavar='FILE', help='a Packages file, also a compressed one, for the row '
                        '"catalogue" (default: what apt has of archives, else /var/lib/dpkg/status)')
    parser.add_argument('--json', metavar='FILE', help='write all figures of all runs there')
    parser.add_argument('--plot', metavar='DIRECTORY', help='draw SVG files there')
    parser.add_argument('--directory', default=tempfile.gettempdir(), help='the disk that is measured')
    parser.add_argument('--bin', required=True, help=argparse.SUPPRESS)
    parser.add_argument('--verbose', action='store_true', help='print each run when it ends')
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (2 if options.quick else 3)
    options.keys = options.keys or (1_000_000 if options.memory else 10_000_000 if options.scaling else 100_000)
    options.members = options.members or sorted(SYSTEMS)
    options.systems = options.systems and options.systems.split(',')
    options.rows = options.rows and options.rows.split(',')
    return options


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix='flotilla-bench-') as options.scratch:
        if options.limits:
            return studies.limits(options)
        if options.memory:
            return studies.memory(options)
        if options.scaling:
            return studies.scaling(options)
        return compare(options)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
