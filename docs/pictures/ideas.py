"""Draw the pictures of docs/ideas.md: lanes.svg, ragged clients in rows and in lanes, and clock.svg, a day under three servers."""

import heapq
from pathlib import Path

STEPS = [9, 7, 5, 4, 3, 2, 2, 1]  # local steps of eight clients, the longest first
HOURS = [2.0, 3.0, 4.5, 6.0, 11.0]  # how long each of five phones takes for a round
END = 24.0
COLORS = ["#4c7fd0", "#d9822b", "#2f9e8f", "#b5588c", "#7a8a2b", "#8667c9", "#c25450", "#5b8c5a"]
STYLE = "<style>.picture{color:#24292f}@media(prefers-color-scheme:dark){.picture{color:#e6edf3}}</style>"


def bar(x: float, y: float, width: float, height: float, color: str, label: str = "", opacity: float = 1.0) -> str:
    """Draw a bar with a white label."""
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="3" fill="{color}" fill-opacity="{opacity}"/>'
    return box + (text(x + width / 2, y + height / 2 + 4, label, "middle", "#fff") if label else "")


def empty(x: float, y: float, width: float, height: float) -> str:
    """Draw the outline of a row in which nothing is learned."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    return f'<rect {place} rx="3" fill="none" stroke="currentColor" stroke-opacity="0.45" stroke-dasharray="3 3"/>'


def text(x: float, y: float, words: str, anchor: str = "start", color: str = "currentColor", weight: str = "normal") -> str:
    """Write words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-weight="{weight}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, width: float = 1, opacity: float = 0.6) -> str:
    """Draw a line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-width="{width}" stroke-opacity="{opacity}"/>'


def sheet(width: int, height: int, label: str, *parts: str) -> str:
    """Put parts on a sheet."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    return f'{head} font-family="system-ui, sans-serif" font-size="12">{STYLE}{"".join(parts)}</svg>\n'


def queued(steps: list[int], lanes: int) -> list[list[tuple[int, int]]]:
    """Return each lane's clients and first steps: whoever is free first takes the next client."""
    ends, found = [0] * lanes, [[] for _ in range(lanes)]
    for client, n in enumerate(steps):
        lane = ends.index(min(ends))
        found[lane].append((client, ends[lane]))
        ends[lane] += n
    return found


def lanes_picture(step: float = 30, row: float = 26) -> str:
    """Draw eight clients in eight rows beside the same clients in three lanes."""
    parts, left, right = [], 14, 14 + 9 * step + 50
    parts.append(text(left, 20, "a row a client, to the longest", weight="bold"))
    for client, n in enumerate(STEPS):
        y = 32 + client * row
        parts += [empty(left, y, max(STEPS) * step, row - 6), bar(left, y, n * step, row - 6, COLORS[client], f"{n}")]
    bottom = 32 + len(STEPS) * row
    parts.append(text(left, bottom + 14, f"{len(STEPS)} x {max(STEPS)} = {len(STEPS) * max(STEPS)} row-steps, {sum(STEPS)} of them useful"))
    lanes = queued(STEPS, 3)
    longest = max(at + STEPS[client] for lane in lanes for client, at in lane)
    parts.append(text(right, 20, "three lanes, and a queue", weight="bold"))
    for i, lane in enumerate(lanes):
        y = 32 + i * row
        parts.append(empty(right, y, longest * step, row - 6))
        parts += [bar(right + at * step, y, STEPS[client] * step - 2, row - 6, COLORS[client], f"{STEPS[client]}") for client, at in lane]
    y = 32 + 3 * row
    parts.append(text(right, y + 14, f"3 x {longest} = {3 * longest} row-steps, {sum(STEPS)} of them useful"))
    for at in sorted({at + STEPS[client] for lane in lanes for client, at in lane}):
        parts.append(line(right + at * step, y + 26, right + at * step, y + 40, 2))
    parts.append(line(right, y + 40, right + longest * step, y + 40))
    parts.append(text(right, y + 58, "local steps. At a mark a client's message is added up,"))
    parts.append(text(right, y + 74, "and its lane takes the next client of the queue"))
    return sheet(int(right + longest * step + 16), int(bottom + 26), "eight ragged clients in rows and in lanes", *parts)


def rounds(wait_for: int) -> tuple[list[tuple[int, float, float, bool]], list[float]]:
    """Return bars (phone, from, to, counts) of rounds that end with the first `wait_for` uploads, and when they end."""
    bars, ends, now = [], [], 0.0
    while now < END:
        over = now + sorted(HOURS)[wait_for - 1]
        bars += [(phone, now, min(now + h, over), now + h <= over) for phone, h in enumerate(HOURS)]
        ends.append(over)
        now = over
    return bars, ends


def buffered(size: int) -> tuple[list[tuple[int, float, float, bool]], list[float]]:
    """Return bars of phones that train all the time, and when each `size` uploads are taken in."""
    bars, ends, waiting = [], [], 0
    arrivals = [(h, phone, 0.0) for phone, h in enumerate(HOURS)]
    while arrivals[0][0] < END:
        now, phone, began = heapq.heappop(arrivals)
        bars.append((phone, began, now, True))
        waiting = (waiting + 1) % size
        ends += [now] if waiting == 0 else []
        heapq.heappush(arrivals, (now + HOURS[phone], phone, now))
    return bars + [(phone, began, END, True) for _, phone, began in arrivals], ends


def clock_picture(hour: float = 26, row: float = 15) -> str:
    """Draw a day of five phones under three servers."""
    left, parts, y = 14, [], 0.0
    servers = [
        ("a server that waits for all five", rounds(5)),
        ("the first three of five", rounds(3)),
        ("a server that moves with every third upload", buffered(3)),
    ]
    for title, (bars, ends) in servers:
        moves = [end for end in ends if end <= END]
        parts.append(text(left, y + 18, f"{title}: {len(moves)} steps of the server in {END:.0f} hours", weight="bold"))
        for phone, start, end, counts in bars:
            x, width = left + start * hour, (min(end, END) - start) * hour - 1.5
            parts.append(bar(x, y + 26 + phone * row, width, int(row) - 3, COLORS[phone], opacity=1.0 if counts else 0.3))
        for end in moves:
            parts.append(line(left + end * hour, y + 23, left + end * hour, y + 26 + len(HOURS) * row, 2, 0.9))
        y += 26 + len(HOURS) * row + 16
    for at in range(0, int(END) + 1, 4):
        parts.append(text(left + at * hour, y + 6, f"{at}", "middle"))
    parts.append(text(left + END * hour / 2, y + 24, "virtual hours; a row is a phone, pale is work that comes too late", "middle"))
    return sheet(int(2 * left + END * hour), int(y + 34), "a day of five phones under three servers", *parts)


if __name__ == "__main__":
    for name, picture in (("lanes", lanes_picture()), ("clock", clock_picture())):
        Path(__file__).with_name(f"{name}.svg").write_text(picture)
