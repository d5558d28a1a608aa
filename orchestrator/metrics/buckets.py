"""Upper bounds of histogram buckets; they set the resolution of a quantile."""

# 1 ms … 1 h. Each bound is at most twice the one before, so a quantile read from a histogram is off
# by at most that factor. On the slowest bundled links a long answer of a large model takes many
# minutes.
SECONDS_BUCKETS = (
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
    *(90.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0),
)
# For metrics with a `device` label: half as many, since a scrape costs as much as all its buckets.
DEVICE_SECONDS_BUCKETS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    *(10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0),
)
# A device applies a state within a fraction of a millisecond unless something is wrong.
LATENESS_BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
    *(5.0, 30.0),  # for a device that was paused
)
# w / t of a candidate [1/s]: from a hundredth of a token's weight over a link that takes 1 s, to
# the whole weight on a device that takes 10 µs. Three steps per decade.
WLR_BUCKETS = tuple(float(f"{10 ** (third / 3):.3g}") for third in range(-6, 16))
# κ of Eq. 10 lies between 0 and 1/2; a bound that equals a θ counts the tokens that θ would affect.
KAPPA_BUCKETS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
