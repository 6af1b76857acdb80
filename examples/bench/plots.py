"""SVG files by gnuplot."""
import os
import subprocess


def gnuplot(path, title, lines):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    script = ['set terminal svg size 720,440 font "sans,11" noenhanced', f'set output "{path}"', f'set title "{title}"',
              'set grid', 'set key left top', *lines]
    subprocess.run(['gnuplot'], input='\n'.join(script), text=True, check=True)


def block(name, points):
    return [f'${name} << END', *(' '.join(map(str, point)) for point in points), 'END']


def curves(path, title, x, y, lines, log=''):
    """`lines`: name -> points (x, y). `log`: the axes that are logarithmic."""
    data = [row for i, points in enumerate(lines.values()) for row in block(f'd{i}', sorted(points))]
    axes = [f'set xlabel "{x}"', f'set ylabel "{y}"', *([f'set logscale {log}'] if log else [])]
    drawn = ', '.join(f'$d{i} using 1:2 with linespoints title "{name}"' for i, name in enumerate(lines))
    gnuplot(path, title, [*data, *axes, f'plot {drawn}'])


def bars(path, title, y, names, groups):
    """`groups`: name -> a value for each of `names`."""
    data = [row for i, values in enumerate(groups.values())
            for row in block(f'd{i}', [(f'"{name}"', value) for name, value in zip(names, values)])]
    style = ['set style data histogram', 'set style fill solid 0.6', 'set xtics rotate by -30', f'set ylabel "{y}"']
    drawn = ', '.join(f'$d{i} using 2:xtic(1) title "{name}"' for i, name in enumerate(groups))
    gnuplot(path, title, [*data, *style, f'plot {drawn}'])
