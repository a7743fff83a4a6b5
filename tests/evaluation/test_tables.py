import numpy as np
import pandas as pd

from handclip_lib.evaluation.tables import claimed, formatted, heading, is_share, readable, result_table


def a_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": ["<b>50%", "ours"], "rank1": [0.92, 0.5], "rank1_low": [0.89, np.nan],
            "rank1_high": [0.9468, np.nan], "gain_p": [0.00012, 0.04], "n_query": [971, 12], "below": [1.5, 2.0],
        }
    )  # fmt: skip


def test_an_interval_is_written_beside_its_figure():
    shown = readable(result_table(a_frame()))
    assert list(shown.columns) == ["model", "Rank-1 (95 % CI), %", "p (gain)", "queries a draw", "below"]
    assert shown["Rank-1 (95 % CI), %"].tolist() == ["92.0 [89.0, 94.7]", "50.0"]
    assert shown["p (gain)"].tolist() == ["<0.001", "0.040"]
    assert shown["queries a draw"].tolist() == ["971", "12"]
    assert shown["model"][0] == "<b>50%"


def test_what_rounds_to_zero_has_no_sign():
    # -0.0003 is -0.03 %, and 0.0 with one decimal: a minus before it would claim a loss that the figure does not show
    table = pd.DataFrame({"gain": [-0.021, -0.0], "gain_low": [-0.053, -0.0], "gain_high": [-0.0003, 0.0]})
    assert formatted(table, list(table))["gain (95 % CI), %"].tolist() == ["-2.1 [-5.3, 0.0]", "0.0 [0.0, 0.0]"]
    assert formatted(table)["gain (95 % CI)"].tolist() == ["-0.021 [-0.053, -0.0003]", "0 [0, 0]"]


def test_what_is_missing_is_empty_and_columns_without_an_interval_stay():
    shown = formatted(pd.DataFrame({"x_low": [0.1], "y": [np.nan], "z": [None]}))
    assert shown.iloc[0].tolist() == ["0.1", "", ""]
    assert formatted(a_frame())["Rank-1 (95 % CI)"].tolist() == ["0.92 [0.89, 0.9468]", "0.5"]


def test_a_table_says_which_columns_are_shown_and_which_rows_are_no_claim():
    rows = a_frame().assign(supported=[True, False])
    table = result_table(rows, ("below", "rank1", "not_there", "supported"))
    shown = readable(table)
    assert list(shown) == ["below", "Rank-1 (95 % CI), %", "enough people for the claim"]
    assert shown["enough people for the claim"].tolist() == ["yes", "no"]
    assert (claimed(table), claimed(result_table(a_frame())), claimed(rows)) == ([True, False], None, None)
    assert list(table) == list(rows), "what is stored is whole"
    assert readable(table.head(1)).equals(shown.head(1)), "some rows are read alike"
    assert readable(rows)["Rank-1 (95 % CI)"][1] == "0.5", "any other table keeps its own unit"
    assert list(readable(result_table([], ("model", "rank1"), columns=["model", "rank1"]))) == ["model", "Rank-1, %"]


def test_a_column_is_called_what_the_field_calls_it():
    names = {
        "rank1_sd": "Rank-1, SD over draws", "d_prime": "d′", "fnmr_validation": "FNMR on validation",
        "rank1_p_holm": "p (Rank-1), Holm", "map_gain": "Δ mAP", "confused_with": "confused with",
        "trained_map": "mAP of trained people",
        "p": "p", "sd": "sd", "by_chance": "people by chance", "fmr_difference": "FMR difference",
        "rank1_spread": "Rank-1, SD over seeds",
    }  # fmt: skip
    assert {name: heading(name) for name in names} == names


def test_attributes_are_read_without_their_underscores_and_counts_with_commas():
    table = result_table({"attribute": ["", "skin_color"], "fmr": [0.1, 0.2], "n_impostor": [12, 90_000_000]})
    told = readable(table)
    assert told["attribute"].tolist() == ["", "skin color"]
    assert told["non-mated pairs"].tolist() == ["12", "90,000,000"]
    assert table["attribute"].tolist() == ["", "skin_color"]


def test_what_a_training_measures_on_validation_is_in_percent():
    told = readable(result_table({"epoch": [1], "val_rank1": [0.5], "val_image_to_text@1": [0.25], "loss": [2.0]}))
    assert list(told) == ["epoch", "Rank-1 on validation, %", "image→text@1 on validation, %", "loss"]
    assert told.iloc[0].tolist() == ["1", "50.0", "25.0", "2"]


def test_what_is_one_share_less_another_is_in_points_and_no_percentage():
    table = result_table({"rank1": [0.5], "rank1_gain": [0.1], "rank1_gain_low": [-0.02], "rank1_gain_high": [0.2],
                          "fmr_difference": [0.01], "rank1_gap": [0.3]})  # fmt: skip
    assert readable(table).to_dict("records") == [
        {"Rank-1, %": "50.0", "Δ Rank-1 (95 % CI), points": "10.0 [-2.0, 20.0]", "FMR difference, points": "1.0",
         "gap, points": "30.0"}
    ]  # fmt: skip


def test_shares_are_known_by_name():
    shares = ["rank1", "rank1_low", "rank1_sd", "map_macro", "fmr_validation", "rank1_gain_high", "map_trapezoid"]
    others = ["rank1_p", "rank1_p_holm", "fnmr_ratio", "eer_threshold", "n_query", "low", "model", "margin"]
    assert [is_share(name) for name in (*shares, *others)] == [True] * len(shares) + [False] * len(others)
