"""What is measured of us beyond the comparison: limits of the machine."""
import json
import os
import subprocess
import tempfile

import plots
from systems import FlatLmdb, Flotilla, Lmdb, Worker, started


def save(options, figures):
    if options.json:
        with open(options.json, 'w') as out:
            json.dump(figures, out, indent=1)


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
