"""Times of the histogram room: it is on every request's path twice."""

from meshcore._fastpath import HistogramDoor, histogram_merge, histogram_quantiles

REPEAT = 1_000


def filled_histogram() -> HistogramDoor:
    histogram = HistogramDoor()
    for exponent in range(10, 34):
        histogram.record(1 << exponent, 1000)
    return histogram


def test_record_of_one_duration(timed):
    histogram = HistogramDoor()
    timed(lambda: histogram.record(1_234_567, REPEAT), times=REPEAT)


def test_three_quantiles_of_a_full_histogram(timed):
    raw = filled_histogram().raw()
    timed(lambda: histogram_quantiles(raw, (0.5, 0.99, 0.999)))


def test_merge_of_the_histograms_of_eight_workers(timed):
    raws = [filled_histogram().raw() for _ in range(8)]
    timed(lambda: histogram_merge(raws))
