"""What each step of cleaning means, pixel by pixel over the whole plane: slow, short, and without chunks."""

import math

import numpy as np

CODES = {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "snow": 4, "no_data": 255}
GROUND = (0, 4)


def near(taken, distance):
    """Pixels whose `distance` to a taken one, a function of two pixels' indices, is at most 1."""
    out = np.zeros_like(taken)
    rows, cols = np.indices(taken.shape)
    for y, x in np.argwhere(taken):
        out |= distance(rows, cols, y, x) <= 1 + 1e-9
    return out


def disc(rows, columns):
    return lambda y, x, v, u: ((y - v) / rows) ** 2 + ((x - u) / columns) ** 2


def close(plane, codes, distance, margin):
    wide = np.pad(plane, margin, constant_values=255)
    closed = ~near(~near(np.isin(wide, codes), distance), distance)
    return spread(wide, codes, distance, closed)[(slice(margin, -margin),) * 2]


def thin(plane, codes, distance, margin):
    wide = np.pad(plane, margin, constant_values=255)
    solid = np.isin(wide, codes) | (wide == 255)
    opened = near(~near(~solid, distance), distance)
    out = plane.copy()
    out[np.isin(plane, codes) & ~opened[(slice(margin, -margin),) * 2]] = 0
    return out


def spread(plane, codes, distance, free=True):
    out = plane.copy()
    for code in reversed(codes):
        out[near(plane == code, distance) & np.isin(plane, GROUND) & free] = code
    return out


def areas(member, steps):
    """Lists of connected pixels, by walking."""
    left = {tuple(int(n) for n in p) for p in np.argwhere(member)}
    while left:
        todo, area = [left.pop()], []
        while todo:
            y, x = todo.pop()
            area.append((y, x))
            for dy, dx in steps:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    todo.append((y + dy, x + dx))
        yield area


SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0))
CORNERS = (*SIDES, (1, 1), (1, -1), (-1, 1), (-1, -1))


def neighbours(plane, area, steps):
    """Pixels around an area, or None if it lies at the scene's edge."""
    around = {(y + dy, x + dx) for y, x in area for dy, dx in steps} - set(area)
    inside = all(0 <= y < plane.shape[0] and 0 <= x < plane.shape[1] for y, x in around)
    return around if inside else None


def sieve(plane, codes, least, weight=lambda y: 1):
    out = plane.copy()
    for area in areas(np.isin(plane, codes), CORNERS):
        around = neighbours(plane, area, CORNERS)
        if around is None or any(plane[pixel] == 255 for pixel in around):
            continue
        if sum(weight(y) for y, _ in area) < least:
            for pixel in area:
                out[pixel] = 0
    return out


def fill(plane, codes, least, weight=lambda y: 1):
    out = plane.copy()
    for area in areas(np.isin(plane, GROUND), SIDES):
        around = neighbours(plane, area, SIDES)
        if around is None or sum(weight(y) for y, _ in area) >= least:
            continue
        walls = {int(plane[pixel]) for pixel in around}
        if walls <= set(codes):
            for pixel in area:
                out[pixel] = next(code for code in codes if code in walls)
    return out


def shadows(plane, light, factors, per_metre, heights, around, own="replace"):
    """Shadows by geometry, cell by cell. `light` is whole numbers, 255 where there is none.

    `per_metre` is by how many cells a shadow lies off for each metre of a cloud's height.
    """
    fy, fx = factors
    height, width = plane.shape
    grid = [(y, x) for y in range(-(-height // fy)) for x in range(-(-width // fx))]
    pixels = {at: [] for at in grid}
    for v, u in np.ndindex(plane.shape):
        pixels[v // fy, u // fx].append((v, u))
    lit = {
        at: [p for p in inside if plane[p] in (0, 3, 4) and light[p] != 255] for at, inside in pixels.items()
    }
    clouds = {at: sum(plane[p] in (1, 2) for p in inside) for at, inside in pixels.items()}
    known = {at: sum(plane[p] != 255 for p in inside) for at, inside in pixels.items()}
    cloudy = {at for at in grid if clouds[at] and 2 * clouds[at] >= known[at]}
    free = {at for at in grid if at not in cloudy and lit[at]}
    below, dark = {}, set()
    for y, x in grid:
        near = [at for at in free if abs(at[0] - y) <= around[0] and abs(at[1] - x) <= around[1]]
        total = sum(int(light[p]) for at in near for p in lit[at])
        below[y, x] = 0.75 * total / max(sum(len(lit[at]) for at in near), 1)
        if (y, x) in free:
            own_here = own != "replace" and 2 * sum(plane[p] == 3 for p in lit[y, x]) >= len(lit[y, x])
            if sum(int(light[p]) for p in lit[y, x]) < below[y, x] * len(lit[y, x]) or own_here:
                dark.add((y, x))
    member = np.zeros((grid[-1][0] + 1, grid[-1][1] + 1), bool)
    for at in cloudy:
        member[at] = True
    steps = math.ceil((heights[1] - heights[0]) * max(map(abs, per_metre))) + 1
    falls = set()
    for area in areas(member, CORNERS):
        best, where = 0.5, []
        for metres in np.linspace(*heights, steps):
            moved = [(y + round(metres * per_metre[0]), x + round(metres * per_metre[1])) for y, x in area]
            ground = [at for at in moved if at in free]
            if len(ground) < 0.2 * len(area) or len(ground) < min(3, len(area)):
                continue
            fit = sum(at in dark for at in ground) / max(len(ground), 1) - 0.02 * metres / 1000
            if fit > best or (fit == best and not where):
                best, where = fit, moved
        falls |= {
            (y + dy, x + dx)
            for y, x in where
            for dy, dx in (*CORNERS, (0, 0))
            if member.shape[0] > y >= 0 <= x < member.shape[1]
        }
    out = plane.copy()
    for at in grid:
        for p in pixels[at]:
            ground = plane[p] in (0, 3, 4)
            if ground and at in falls and (light[p] < below[at] or (plane[p] == 3 and own != "replace")):
                out[p] = 3
            elif plane[p] == 3 and own != "keep" and light[p] != 255:
                out[p] = 0
    return out
