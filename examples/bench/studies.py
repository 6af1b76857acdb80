"""What is measured of us beyond the comparison: limits of the machine, memory over time, scaling."""
import json
import os
import subprocess
import sys
import tempfile
import time

import plots
from systems import MIB, CompactedEtcd, FlatLmdb, Flotilla, Lmdb, disk_bytes, memory_of, processor_seconds, started
from systems import Worker


def save(options, figures):
    if options.json:
        with open(options.json, 'w') as out:
            json.dump(figures, out, indent=1)


def table(head, lines):
    """Columns as wide as their widest entry; the first to the left."""
    cells = [head, *([entry if isinstance(entry, str) else f'{entry:,.0f}' for entry in line] for line in lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    for line in cells:
        print('  ' + '  '.join(entry.ljust(width) if i == 0 else entry.rjust(width)
                               for i, (entry, width) in enumerate(zip(line, widths))), flush=True)


# --- limits ---------------------------------------------------------------------------------------------------------

STAGES = [('queue', 'caller to loop thread'), ('log_wait', 'waiting for the group before'),
          ('log_write', 'encoding and writing a block'), ('log_sync', 'syncing it'),
          ('quorum', 'append to commit, of which the two above'), ('apply_wait', 'waiting for the batch before'),
          ('apply', 'commands and LMDB\'s commit'), ('completion', 'telling callers'), ('command', 'the whole command')]


def limits(options):
    """The floor on this machine, and the distance to it, stage by stage."""
    with tempfile.TemporaryDirectory(prefix='flotilla-bench-', dir=options.directory) as directory:
        floor = json.loads(subprocess.run([os.path.join(options.bin, 'machine'), '--directory', directory], check=True,
                                          capture_output=True, text=True).stdout)
    print('the floor, medians in microseconds')
    for name, what in [('sync', 'write 4 KiB and fdatasync'), ('sync_64k', 'the same with 64 KiB'),
                       ('sync_three', 'the same, 4 KiB, three processes at once'),
                       ('round_trip', 'loopback round trip, 64 B'), ('wake_up', 'waking a thread')]:
        print(f'  {what:<44}{floor[name]:>10.1f}')
    for kind, row, callers, name in ((FlatLmdb, 'put', 256, 'flat'), (Lmdb, 'get_local', 1, 'gets')):
        with started(kind, options, 1) as system:
            system.fill(options.keys)
            floor[name] = system.client.run(row, callers, options.seconds, 100, options.keys)['rate']
    floor['caller_ns'] = caller_cost(options)
    print(f'  LMDB without syncs, puts a second in batches of 256: {floor["flat"]:.0f}; gets a second by one thread: '
          f'{floor["gets"]:.0f}\n  a caller\'s own work, nanoseconds an operation: get_local '
          f'{floor["caller_ns"]["get_local"]:.0f}, put {floor["caller_ns"]["put"]:.0f}')
    measured = [stages(options, members, callers, floor) for members in options.members for callers in (1, 64, 256)]
    save(options, {'floor': floor, 'stages': measured})
    if options.plot:
        for members in options.members:
            plots.bars(f'{options.plot}/stages-{members}.svg', f'stages of a put, {members} members', 'mean, microseconds',
                       [name for name, _ in STAGES],
                       {f'{one["callers"]} callers': [one['stages'][name]['mean'] for name, _ in STAGES]
                        for one in measured if one['members'] == members})


def caller_cost(options):
    """Nanoseconds an operation of callers that ask nobody."""
    worker = Worker([os.path.join(options.bin, 'null_worker')], None)
    worker.wait_until_ready()
    try:
        return {row: 1e9 / worker.run(row, 1, options.seconds, 100, options.keys)['rate'] for row in ('get_local', 'put')}
    finally:
        worker.tell('quit')
        worker.process.wait()


def stages(options, members, callers, floor):
    with started(Flotilla, options, members) as system:
        system.fill(options.keys)
        worker = system.on('leader')
        before = worker.ask('report')
        figures = worker.run('put', callers, options.seconds, 100, options.keys)
        after = worker.ask('report')
    sync = floor['sync'] if members == 1 else floor['sync_three']
    best = sync if members == 1 else floor['round_trip'] + sync
    print(f'\n{members} member{"s" if members > 1 else ""}, {callers} caller{"s" if callers > 1 else ""}: '
          f'{figures["rate"]:.0f} puts/s, p50 {figures["p50"]:.0f}, p99 {figures["p99"]:.0f}; p50 is '
          f'{figures["p50"] / best:.2f}x ' + ('a durable write' if members == 1 else '(round trip + durable write of three)'))
    print(f'  {"stage":<52}{"times":>10}{"per put":>10}{"mean us":>10}{"us per put":>12}')
    puts = after['command']['count'] - before['command']['count']
    each = {}
    for name, what in STAGES:
        times = after[name]['count'] - before[name]['count']
        spent = after[name]['mean'] * after[name]['count'] - before[name]['mean'] * before[name]['count']
        each[name] = {'times': times, 'mean': spent / max(times, 1)}
        print(f'  {what:<52}{times:>10}{times / max(puts, 1):>10.3f}{spent / max(times, 1):>10.1f}'
              f'{spent / max(puts, 1):>12.2f}')
    batch = (after['applied_entries'] - before['applied_entries']) / max(each['apply']['times'], 1)
    print(f'  {batch:.1f} entries in a batch that is applied; the rate is {figures["rate"] / floor["flat"]:.2f} of '
          'LMDB\'s without syncs in batches of 256')
    return {'members': members, 'callers': callers, 'batch': batch, 'stages': each, **figures}


# --- memory ---------------------------------------------------------------------------------------------------------

def slope(samples, name):
    """Least squares, MiB a minute."""
    count = len(samples)
    x = [one['minutes'] for one in samples]
    y = [one[name] for one in samples]
    mean_x, mean_y = sum(x) / count, sum(y) / count
    square = sum((at - mean_x) ** 2 for at in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / square if square else 0


def sample(system, begin):
    each = [memory_of(pid) for pid in system.servers]
    return {'minutes': (time.time() - begin) / 60, 'own_of_each': [one['own'] for one in each],
            'own': sum(one['own'] for one in each), 'resident': sum(one['resident'] for one in each),
            'disk': disk_bytes(system.directory) / MIB}


def memory(options):
    members = 3
    found = {}
    for kind in (Flotilla, CompactedEtcd):
        if options.systems and kind.name not in options.systems:
            continue
        with started(kind, options, members) as system:
            found[kind.name] = memory_of_system(system, options)
    save(options, found)
    if options.plot:
        for name, what in (('own', 'memory without mapped files'), ('resident', 'resident memory'), ('disk', 'disk')):
            plots.curves(f'{options.plot}/memory-{name}.svg', f'{what}, {members} members, {options.keys} keys, 64 callers',
                         'minutes', 'MiB', {system: [(one['minutes'], one[name]) for one in figures['samples']]
                                            for system, figures in found.items()})


def memory_of_system(system, options):
    print(f'\n{system.name}, {system.members} members: filling {options.keys} keys', flush=True)
    system.fill(options.keys)
    worker = system.on('leader')
    if system.name == 'flotilla':
        bounds = worker.ask('report')['options']
        print('  bounds of each member, MiB: ' + ', '.join(f'{name} {value / MIB:.0f}' for name, value in bounds.items()))
    else:
        bounds = {}
        print(f'  {" ".join(system.compaction)}')
    print(f'  {"minute":>8}{"own of each, MiB":>28}{"own":>8}{"resident":>10}{"disk":>8}', flush=True)
    begin = time.time()
    seconds = options.minutes * 60
    interval = min(60, seconds / 4)
    worker.tell(f'run put 64 {int(seconds * 1000)} 100 {options.keys} 1')
    samples = []
    for number in range(int(seconds / interval) + 1):
        time.sleep(max(0.0, begin + number * interval - time.time()))
        one = sample(system, begin)
        samples.append(one)
        print(f'  {one["minutes"]:>8.1f}{" / ".join(f"{own:.0f}" for own in one["own_of_each"]):>28}{one["own"]:>8.0f}'
              f'{one["resident"]:>10.0f}{one["disk"]:>8.0f}', flush=True)
    figures = worker.answer()
    rate = figures['operations'] / figures['seconds']
    print(f'  {rate:.0f} puts/s, {figures["failures"]} failed')
    slopes = {}
    for title, part in (('whole', samples), ('later half', samples[len(samples) // 2:])):
        slopes[title] = {name: slope(part, name) for name in ('own', 'resident', 'disk')}
        print(f'  MiB a minute, {title}: ' + ', '.join(f'{name} {value:+.1f}' for name, value in slopes[title].items()))
    return {'rate': rate, 'bounds': bounds, 'samples': samples, 'slopes': slopes, **figures}


# --- scaling --------------------------------------------------------------------------------------------------------

KEYS = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]
MEMBERS = [1, 3, 5, 7]
VALUES = [100, 1 << 10, 16 << 10, 128 << 10, 1 << 20]
CALLERS = [1, 4, 16, 64, 256, 1024, 4096]
FILLED = 100_000
VALUE_BYTES = 256 << 20  # of all keys together, where values are large


class Scaling:
    def __init__(self, options):
        self.options = options
        self.begin = time.time()
        self.figures = []

    def progress(self, what):
        print(f'{time.time() - self.begin:5.0f} s  {what}', file=sys.stderr, flush=True)

    def run(self, system, study, x, workload, callers, value, keys):
        before = sum(processor_seconds(pid) for pid in system.servers)
        figures = system.on('leader').run(workload, callers, self.options.seconds, value, keys)
        figures['cpu'] = (sum(processor_seconds(pid) for pid in system.servers) - before) / max(
            figures['all_operations'], 1) * 1000
        figures |= {'study': study, 'x': x, 'members': system.members, 'workload': workload,
                    'own_memory': system.memory()['own'], 'disk': disk_bytes(system.directory)}
        self.figures.append(figures)
        return figures

    def over_keys(self):
        print('\nkeys: one member, 64 callers')
        lines = []
        for keys in (keys for keys in KEYS if keys <= self.options.keys):
            self.progress(f'{keys} keys')
            with started(Flotilla, self.options, 1) as system:
                filled = system.fill(keys)
                put, get = (self.run(system, 'keys', keys, workload, 64, 100, keys) for workload in ('put', 'get_local'))
            lines.append([f'{keys:,}', f'{filled["seconds"]:.1f}', put['rate'], put['p50'], put['p99'], get['rate'],
                          f'{get["p50"]:.1f}', put['own_memory'], put['disk'] / MIB])
        table(['keys', 'filled in s', 'puts/s', 'p50 us', 'p99', 'local gets/s', 'p50', 'own MiB', 'disk MiB'], lines)

    def over_members(self):
        print('\nmembers: 64 callers')
        lines = []
        for members in MEMBERS:
            self.progress(f'{members} members')
            with started(Flotilla, self.options, members) as system:
                system.fill(FILLED)
                put, get = (self.run(system, 'members', members, workload, 64, 100, FILLED) for workload in ('put', 'get'))
            lines.append([str(members), put['rate'], put['p50'], put['p99'], f'{put["cpu"]:.4f}', get['rate'], get['p50'],
                          get['p99'], put['own_memory']])
        table(['members', 'puts/s', 'p50 us', 'p99', 'CPU s/1000', 'gets/s', 'p50', 'p99', 'own MiB'], lines)

    def over_values(self):
        print('\nvalues: 16 callers')
        lines = []
        for members in (1, 3):
            for value in VALUES:
                self.progress(f'values of {value} B, {members} members')
                keys = min(FILLED, VALUE_BYTES // value)
                with started(Flotilla, self.options, members) as system:
                    system.fill(keys, value)
                    put = self.run(system, 'values', value, 'put', 16, value, keys)
                put['bytes_per_second'] = put['rate'] * value
                lines.append([f'{value:,} B', str(members), put['rate'], f'{put["bytes_per_second"] / 1e6:.1f}', put['p50'],
                              put['p99'], f'{put["cpu"]:.4f}', put['own_memory']])
        table(['values', 'members', 'puts/s', 'MB/s', 'p50 us', 'p99', 'CPU s/1000', 'own MiB'], lines)

    def over_callers(self):
        print('\ncallers')
        lines = []
        for members in (1, 3):
            with started(Flotilla, self.options, members) as system:
                system.fill(FILLED)
                for callers in CALLERS:
                    self.progress(f'{callers} callers, {members} members')
                    entries, batches = system.batches()
                    put = self.run(system, 'callers', callers, 'put', callers, 100, FILLED)
                    entries, batches = (now - then for now, then in zip(system.batches(), (entries, batches)))
                    put['batch'] = entries / max(batches, 1)
                    lines.append([f'{callers:,}', str(members), put['rate'], put['p50'], put['p99'], f'{put["cpu"]:.4f}',
                                  f'{put["batch"]:.1f}', put['own_memory']])
        table(['callers', 'members', 'puts/s', 'p50 us', 'p99', 'CPU s/1000', 'batch', 'own MiB'], lines)

    def plot(self, directory):
        def lines(study, value):
            found = {}
            for one in self.figures:
                if one['study'] == study:
                    name = one['workload'] if study in ('keys', 'members') else f'members: {one["members"]}'
                    found.setdefault(name, []).append((one['x'], value(one)))
            return found

        for study, x, log in (('keys', 'keys', 'xy'), ('members', 'members', ''), ('values', 'bytes of a value', 'xy'),
                              ('callers', 'callers', 'xy')):
            plots.curves(f'{directory}/scaling-{study}.svg', f'scaling: {study}', x, 'per second',
                         lines(study, lambda one: one['rate']), log)
        plots.curves(f'{directory}/scaling-bytes.svg', 'scaling: values', 'bytes of a value', 'MB per second',
                     lines('values', lambda one: one['bytes_per_second'] / 1e6), 'xy')
        plots.curves(f'{directory}/scaling-latency.svg', 'scaling: callers, p99', 'callers', 'milliseconds',
                     lines('callers', lambda one: one['p99'] / 1000), 'xy')


def scaling(options):
    study = Scaling(options)
    for part in (study.over_keys, study.over_members, study.over_values, study.over_callers):
        part()
    study.progress('done')
    save(options, study.figures)
    if options.plot:
        study.plot(options.plot)
