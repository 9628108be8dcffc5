"""What the quantities are called in sentences and tables on all experiments."""

BITS, DEEP, BEYOND, WHOLE, EQUAL, STEPS, EXCESS, DISTANCE, RISE, ERRORS = (
    "test bits/dim",
    "test bits/dim with as many blocks",
    "test bits/dim, the less favourable of both",
    "test bits/dim after as many seconds",
    "validation bits/dim at equal seconds",
    "validation bits/dim after",
    "excess bits/dim halfway on great circles",
    "the Fréchet distance",
    "the rise of bits/dim under the strongest noise",
    "the error rate of nearest neighbours under the strongest noise",
)
