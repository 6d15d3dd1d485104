"""The rules of the corpus' board games, as their oracles and draws need them."""

_LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def winner(board: str) -> str | None:
    """Who has three in a row on the board of nine characters ("x", "o" or "."), None when nobody has."""
    for a, b, c in _LINES:
        if board[a] != "." and board[a] == board[b] == board[c]:
            return board[a]
    return None


_STEPS = {"u": (0, -1), "d": (0, 1), "l": (-1, 0), "r": (1, 0)}


def snake(width: int, height: int, moves: str) -> tuple[str, bool]:
    """The field after `moves` of a snake that grows with each step, and whether it hit a wall or itself."""
    field = [["."] * width for _ in range(height)]
    x = y = 0
    crashed = False
    for move in moves:
        field[y][x] = "o"
        to_x, to_y = x + _STEPS[move][0], y + _STEPS[move][1]
        crashed = not (0 <= to_x < width and 0 <= to_y < height) or field[to_y][to_x] == "o"
        if crashed:
            break
        x, y = to_x, to_y
    field[y][x] = "@"
    return "".join("".join(row) + "\n" for row in field), crashed
