"""Whatever data files hold: no row is lost in silence, and what stops training is reported by `describe` first."""

from tests.fuzz.data_files import round_of_files


def test_any_data_is_trained_on_or_refused_and_every_row_counted():
    ends = round_of_files(number=3, examples=20)

    assert ends["trained"] >= 4
    assert ends["refused"] >= 4
