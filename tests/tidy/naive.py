"""What each step of cleaning means, pixel by pixel over the whole plane: slow, short, and without chunks."""

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
