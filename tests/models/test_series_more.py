"""More forecasters of series: what each must do by its definition, and that programs agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoformerConfig
from transformers.models.autoformer.modeling_autoformer import (
    AutoformerAttention,
    AutoformerLayernorm,
    AutoformerSeriesDecompositionLayer,
)

from edgemix import rewrites
from edgemix.errors import InputError
from edgemix.models import tiny_series
from edgemix.models.lively import Factory, enliven
from edgemix.models.series.auto_correlation import AutoCorrelation, circulant, diagonals
from edgemix.models.series.autoformer import Autoformer, SeasonNorm
from edgemix.models.series.gated_residual import GatedResidual, VariableSelection
from edgemix.models.series.inverted import Inverted, InvertedLayer
from edgemix.models.series.itransformer import ITransformer, VariateAttention
from edgemix.models.series.just_dense import DenseMixer
from edgemix.models.series.moving_average import MovingAverage
from edgemix.models.series.revin import RevIN
from edgemix.models.series.samformer import ChannelWiseAttention, Samformer
from edgemix.models.series.scaling import standardize
from edgemix.models.series.softs import Softs, Star
from edgemix.models.series.tft import InterpretableAttention, Tft
from edgemix.models.series.xpatch import Decomposition, SeasonStream, XPatch
from edgemix.program import Origin, Program

NORMALIZED = (
    tiny_series.itransformer, tiny_series.just_dense, tiny_series.samformer, tiny_series.softs,
    tiny_series.xpatch,
)  # fmt: skip
FACTORIES = (*NORMALIZED, tiny_series.autoformer, tiny_series.tft)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def awake(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    enliven(module)
    return module.eval()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_tiny_model_is_small_and_its_program_gives_what_it_gives(
    factory: Callable[[], Factory],
) -> None:
    module, (example,) = factory()
    assert sum(p.numel() for p in module.parameters()) < 5_000
    program = rewrites.standard(Program.trace(module, (example,), Origin("tiny")))
    x = drawn(64, *example.shape[1:])
    with torch.no_grad():
        expected = said = module(x)
        if factory in NORMALIZED:  # more than the mean and the deviation of its input
            series = standardize(x.transpose(1, 2))
            said = (expected.transpose(1, 2) - series.mean) * series.inverse
    assert expected.shape == (64, 8, 3)
    assert float(said.std(0).min()) > 0.1
    torch.testing.assert_close(program.run(x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factory", NORMALIZED)
def test_a_constant_added_to_a_series_is_added_to_its_forecast_alone(
    factory: Callable[[], Factory],
) -> None:
    module, (example,) = factory()
    x, added = drawn(5, *example.shape[1:]), torch.tensor([7.0, 0.0, -40.0])
    with torch.no_grad():
        torch.testing.assert_close(module(x + added), module(x) + added, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factory", [tiny_series.itransformer, tiny_series.softs])
def test_series_in_another_order_have_forecasts_in_that_order(
    factory: Callable[[], Factory],
) -> None:
    module, (example,) = factory()
    x, order = drawn(5, *example.shape[1:]), [2, 0, 1]
    with torch.no_grad():
        torch.testing.assert_close(module(x[..., order]), module(x)[..., order])


@pytest.mark.parametrize("factory", [tiny_series.itransformer, tiny_series.softs])
def test_models_whose_tokens_are_series_take_any_number_of_them(
    factory: Callable[[], Factory],
) -> None:
    module, _ = factory()
    with torch.no_grad():
        assert module(drawn(2, 16, 7)).shape == (2, 8, 7)


@pytest.mark.parametrize(
    ("factory", "together"),
    [
        (tiny_series.itransformer, True),
        (tiny_series.just_dense, True),
        (tiny_series.samformer, True),
        (tiny_series.softs, True),
        (tiny_series.xpatch, False),
        (tiny_series.autoformer, True),
    ],
)
def test_series_are_seen_together_or_apart(factory: Callable[[], Factory], together: bool) -> None:
    module, (example,) = factory()
    x = drawn(1, *example.shape[1:])
    moved = x.clone()
    moved[..., 0] += drawn(x.shape[1])
    with torch.no_grad():
        changed = (module(moved) - module(x)).abs().amax((0, 1)) > 1e-6
    assert changed.tolist() == [True, together, together]


def test_a_layer_of_itransformer_is_torchs_with_the_norms_behind() -> None:
    theirs = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True
    ).eval()
    ours = InvertedLayer(lambda: VariateAttention(8, 2), 8, 12).eval()
    awake(theirs)
    attention, mixer = theirs.self_attn, ours.mixer
    assert isinstance(mixer, VariateAttention)
    parts = (mixer.queries, mixer.keys, mixer.values)
    given = {"weight": attention.in_proj_weight, "bias": attention.in_proj_bias}
    with torch.no_grad():
        for name, whole in given.items():
            for part, value in zip(parts, whole.chunk(3), strict=True):
                getattr(part, name).copy_(value)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (mixer.proj, attention.out_proj), (ours.mixed_norm, theirs.norm1),
        (ours.mlp[0], theirs.linear1), (ours.mlp[2], theirs.linear2), (ours.norm, theirs.norm2),
    ]  # fmt: skip
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    x = drawn(4, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_a_dense_mixer_is_one_matrix_for_every_input() -> None:
    mixer, x = awake(DenseMixer(3)), drawn(2, 3, 4)
    assert isinstance(mixer, DenseMixer)
    matrix, shift = mixer.matrix.weight, mixer.matrix.bias
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), matrix @ x + shift[:, None])
        order = [2, 0, 1]
        assert not torch.allclose(mixer(x[:, order]), mixer(x)[:, order])
    with pytest.raises(InputError, match="is made for tokens of 3, not of 2"):
        mixer(x[:, :2])


def test_feed_forwards_are_as_wide_as_tokens_unless_they_are_asked_to_be_wider() -> None:
    wide: list[Inverted] = [
        ITransformer(time=8, horizon=2, hidden=6, heads=2),
        Softs(time=8, horizon=2, hidden=6, core=3),
    ]
    for model in wide:
        for layer in model.layers:
            assert layer.mlp[0].out_features == 6


def test_samformers_attention_is_torchs_with_one_head() -> None:
    attention, x = awake(ChannelWiseAttention(6, 4)), drawn(2, 3, 6)
    assert isinstance(attention, ChannelWiseAttention)
    q, k, v = attention.queries(x), attention.keys(x), attention.values(x)
    with torch.no_grad():
        expected = functional.scaled_dot_product_attention(q, k, v)
        torch.testing.assert_close(attention(x), expected)


def test_samformer_that_heeds_nothing_is_one_linear_map_over_time() -> None:
    model = Samformer(time=6, horizon=2, channels=3).eval()
    nn.init.zeros_(model.attention.values.weight)
    nn.init.zeros_(model.attention.values.bias)
    x = drawn(2, 6, 3)
    series = standardize(x.transpose(1, 2))
    with torch.no_grad():
        expected = series.restore(model.head(series.values)).transpose(1, 2)
        torch.testing.assert_close(model(x), expected)


def test_series_come_back_from_a_learned_level_and_spread() -> None:
    revin, x = RevIN(3), 30.0 * drawn(2, 3, 50) + 500.0
    with torch.no_grad():
        revin.gain.copy_(torch.tensor([[2.0], [0.5], [-1.0]]))
        revin.shift.copy_(torch.tensor([[0.0], [3.0], [-4.0]]))
        values, series = revin(x)
        torch.testing.assert_close(values.mean(-1), revin.shift.T.expand(2, 3), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            values.std(-1, correction=0), revin.gain.abs().T.expand(2, 3), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(revin.restore(values, series), x)


def test_a_core_is_what_stochastic_pooling_gives_on_average() -> None:
    star, x = awake(Star(4, 3)), drawn(1, 5, 4)
    assert isinstance(star, Star)
    with torch.no_grad():
        given = star.aggregate(x)
        core = star.core(x)
        star.train()
        torch.manual_seed(0)
        draws = star.core(x.expand(20_000, -1, -1))
    distances = (draws - given).abs()
    assert float(distances.amin(1).max()) < 1e-6  # each is a feature of one series
    spread = given.std(1).max() / 20_000**0.5
    assert float((draws.mean(0) - core[0]).abs().max()) < 5 * float(spread)


def test_a_core_is_one_for_all_series() -> None:
    star, x = awake(Star(4, 3)), drawn(2, 5, 4)
    assert isinstance(star, Star)
    with torch.no_grad():
        core = star.core(x)
        assert core.shape == (2, 1, 3)
        for i in range(5):
            whole = torch.cat([x[:, i], core[:, 0]], -1)
            torch.testing.assert_close(star(x)[:, i], star.redistribute(whole))


@pytest.mark.parametrize("smoothing", [0.3, 0.9])
def test_a_trend_is_the_moving_averages_and_with_the_season_it_is_the_series(
    smoothing: float,
) -> None:
    x = drawn(2, 3, 40)
    trend, season = Decomposition(40, smoothing)(x)
    torch.testing.assert_close(trend + season, x)
    average = x[..., 0]
    for step in range(40):
        average = smoothing * x[..., step] + (1 - smoothing) * average
        torch.testing.assert_close(trend[..., step], average)


def test_a_constant_series_has_no_season() -> None:
    trend, season = Decomposition(10, 0.3)(torch.full((1, 1, 10), 4.0))
    torch.testing.assert_close(trend, torch.full((1, 1, 10), 4.0))
    torch.testing.assert_close(season, torch.zeros(1, 1, 10), rtol=0, atol=1e-6)


def test_a_season_goes_through_the_convolutions_as_samples_of_their_own_would() -> None:
    """The authors' layout: a series is a sample, its patches channels, what they embed a row."""
    stream, x = SeasonStream(16, 4, patch=4, stride=2), drawn(3, 5, 16)
    stream.embed_norm.running_var.fill_(2.0)
    awake(stream)

    def normed(norm: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(norm, nn.BatchNorm2d)
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )

    depthwise, pointwise = stream.depthwise[0], stream.pointwise[0]
    with torch.no_grad():
        one = functional.pad(x.flatten(0, 1), (0, 2), mode="replicate").unfold(-1, 4, 2)
        one = normed(stream.embed_norm, functional.gelu(stream.patches.embed(one)))
        deep = functional.conv1d(
            one, depthwise.weight[:, :, 0], depthwise.bias, stride=4, groups=one.shape[1]
        )
        both = normed(stream.depthwise[2], functional.gelu(deep)) + stream.residual(one)
        across = functional.conv1d(both, pointwise.weight[..., 0], pointwise.bias)
        flat = normed(stream.pointwise[2], functional.gelu(across)).flatten(1)
        expected = stream.head(flat).reshape(3, 5, 4)
        torch.testing.assert_close(stream(x), expected)


def test_diagonals_and_circulants_wrap_around() -> None:
    x, weights = drawn(2, 5, 5), drawn(2, 5)
    turned, matrix = diagonals(x), circulant(weights)
    for t in range(5):
        for i in range(5):
            assert torch.equal(turned[:, t, i], x[:, t, (t + i) % 5])
            assert torch.equal(matrix[:, t, i], weights[:, (i - t) % 5])


def _correlations(heads: int, time: int, factor: int) -> tuple[AutoCorrelation, nn.Module]:
    theirs = AutoformerAttention(8, heads, autocorrelation_factor=factor).eval()
    awake(theirs)
    ours = AutoCorrelation(8, time, factor).eval()
    pairs = {
        ours.queries: theirs.q_proj, ours.keys: theirs.k_proj, ours.values: theirs.v_proj,
        ours.proj: theirs.out_proj,
    }  # fmt: skip
    for mine, other in pairs.items():
        mine.load_state_dict(other.state_dict())
    return ours, theirs


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize(("heads", "samples"), [(1, 3), (2, 1)])
def test_auto_correlation_is_transformers_own(heads: int, samples: int, trains: bool) -> None:
    """Of one head or one sample: with more of both theirs takes the delays of other samples."""
    ours, theirs = _correlations(heads, 12, 2)
    x = drawn(samples, 12, 8)
    with torch.no_grad():
        expected = theirs.train(trains)(x)[0]
        torch.testing.assert_close(ours.train(trains)(x, x), expected, rtol=1e-5, atol=1e-5)


def test_auto_correlation_with_a_longer_source_is_transformers_own() -> None:
    ours, theirs = _correlations(2, 8, 1)
    x, source = drawn(1, 8, 8), drawn(1, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, source), theirs(x, source)[0], rtol=1e-5, atol=1e-5)


def test_a_shorter_source_has_zeros_behind() -> None:
    ours, _ = _correlations(1, 8, 1)
    x, source = drawn(1, 8, 8), drawn(1, 5, 8)
    with torch.no_grad():
        k, v = (functional.pad(f(source), (0, 0, 0, 3)) for f in (ours.keys, ours.values))
        expected = ours.proj(circulant(ours.weights(ours.queries(x), k)) @ v)
        torch.testing.assert_close(ours(x, source), expected)


def test_auto_correlation_turns_with_its_input() -> None:
    ours, _ = _correlations(1, 12, 2)
    x = drawn(3, 12, 8)
    with torch.no_grad():
        expected = ours(x, x).roll(5, 1)
        torch.testing.assert_close(ours(x.roll(5, 1), x.roll(5, 1)), expected, rtol=1e-5, atol=1e-5)


def test_the_delays_of_a_periodic_series_are_its_periods() -> None:
    ours = AutoCorrelation(1, 32, 1.0)
    assert ours.delays == 3
    x = torch.sin(torch.arange(32) * torch.pi / 4)[None, :, None]
    x = x + 0.01 * torch.tensor([1.0, 0.0]).repeat(16)[None, :, None]
    weights = ours.eval().weights(x, x)[0]
    assert set(weights.nonzero().flatten().tolist()) <= {0, 8, 16, 24}
    assert int((weights > 0).sum()) == 3
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_season_is_what_the_moving_average_leaves(kernel: int) -> None:
    x = drawn(2, 9, 3)
    season, trend = MovingAverage(kernel)(x)
    torch.testing.assert_close(season + trend, x)
    theirs = AutoformerSeriesDecompositionLayer(AutoformerConfig(moving_average=kernel))(x)
    torch.testing.assert_close((season, trend), theirs)


def test_a_season_norm_is_transformers_own() -> None:
    norm, x = SeasonNorm(6), 3.0 * drawn(2, 5, 6) + 1.0
    theirs = AutoformerLayernorm(AutoformerConfig(d_model=6))
    awake(theirs)
    norm.norm.load_state_dict(theirs.layernorm.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(norm(x), theirs(x))


def test_an_autoformer_without_seasons_keeps_the_mean() -> None:
    """All that its layers say silenced, the forecast is the trend that the decoder began with."""
    model = Autoformer(time=16, horizon=4, channels=2, hidden=4, kernel=5).eval()
    nn.init.zeros_(model.head[1].weight)
    nn.init.zeros_(model.head[1].bias)
    for layer in model.decoder:
        nn.init.zeros_(layer.trend.conv.weight)
    x = drawn(3, 16, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x), x.mean(1, keepdim=True).expand(-1, 4, -1))


@pytest.mark.parametrize("label", [0, 3, 16])
def test_a_decoder_begins_with_as_many_steps_as_it_is_told(label: int) -> None:
    model = Autoformer(
        time=16, horizon=4, channels=2, label=label, hidden=4, kernel=5, decoder_layers=2
    )
    with torch.no_grad():
        assert model.eval()(drawn(3, 16, 2)).shape == (3, 4, 2)


@pytest.mark.parametrize("outputs", [6, 4])
def test_a_gated_residual_network_whose_gate_is_closed_is_a_norm(outputs: int) -> None:
    network, x = awake(GatedResidual(6, 5, outputs)), drawn(3, 6)
    assert isinstance(network, GatedResidual)
    with torch.no_grad():
        open_result = network(x)
        network.skip.gate.bias.fill_(-100.0)
        expected = network.skip.norm(network.residual(x))
        torch.testing.assert_close(network(x), expected)
    assert not torch.allclose(open_result, expected)
    assert isinstance(network.residual, nn.Identity) == (outputs == 6)


def test_a_gated_residual_network_is_what_its_equations_say() -> None:
    network, x = awake(GatedResidual(6, 5, 6)), drawn(3, 6)
    assert isinstance(network, GatedResidual)
    skip = network.skip
    with torch.no_grad():
        inner = network.narrow(functional.elu(network.widen(x)))
        gated = functional.glu(torch.cat([skip.value(inner), skip.gate(inner)], -1))
        torch.testing.assert_close(network(x), skip.norm(x + gated))


def test_chosen_variables_are_weighed_by_weights_that_sum_to_one() -> None:
    selection, x = awake(VariableSelection(3, 4)), drawn(2, 5, 3)
    assert isinstance(selection, VariableSelection)
    with torch.no_grad():
        parts = selection.embedded(x)
        weights = selection.weights(parts)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
        seen = [n(p) for n, p in zip(selection.networks, parts, strict=True)]
        expected = sum(weights[..., i : i + 1] * seen[i] for i in range(3))
        torch.testing.assert_close(selection(x), expected)


def test_a_variable_that_is_not_chosen_is_not_heard() -> None:
    selection, x = awake(VariableSelection(3, 4)), drawn(2, 5, 3)
    assert isinstance(selection, VariableSelection)
    moved = x.clone()
    moved[..., 1] += 1.0
    with torch.no_grad():
        selection.choose.skip.norm.weight.zero_()
        selection.choose.skip.norm.bias.copy_(torch.tensor([0.0, -100.0, 0.0]))
        torch.testing.assert_close(selection(moved), selection(x))


def test_a_step_to_come_looks_at_itself_and_before() -> None:
    attention, x = awake(InterpretableAttention(4, 2, 5, 3)), drawn(2, 8, 4)
    assert isinstance(attention, InterpretableAttention)
    with torch.no_grad():
        weights = attention.weights(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    expected = torch.arange(8)[None] <= torch.arange(5, 8)[:, None]
    assert torch.equal(weights > 0, expected.expand(2, -1, -1))


def test_interpretable_attention_is_the_mean_of_torchs_heads() -> None:
    attention, x = awake(InterpretableAttention(4, 2, 5, 3)), drawn(2, 8, 4)
    assert isinstance(attention, InterpretableAttention)
    with torch.no_grad():
        values = attention.values(x)
        heads = [
            functional.scaled_dot_product_attention(q, k, values, is_causal=True)
            for q, k in zip(
                attention.queries(x).chunk(2, -1), attention.keys(x).chunk(2, -1), strict=True
            )
        ]
        expected = attention.proj((heads[0] + heads[1]) / 2)[:, -3:]
        torch.testing.assert_close(attention(x), expected)


def test_the_decoder_goes_on_where_the_encoder_ends() -> None:
    """With the same weights both LSTMs are one, over all steps."""
    module, (example,) = tiny_series.tft()
    assert isinstance(module, Tft)
    module.decoder.load_state_dict(module.encoder.state_dict())
    heard: list[Tensor] = []
    module.local_skip.register_forward_pre_hook(lambda _, given: heard.extend(given))
    with torch.no_grad():
        module(drawn(2, *example.shape[1:]))
        inputs, outputs = heard
        torch.testing.assert_close(outputs, module.encoder(inputs)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariateAttention(6, 4), "6 features do not divide into 4 heads"),
        (lambda: Decomposition(8, 1.0), "a smoothing of 1.0 is no weight"),
        (lambda: XPatch(time=16, horizon=1, channels=1), "a horizon of 1 has no half"),
        (
            lambda: XPatch(time=17, horizon=4, channels=1),
            "patches of 16 steps, 8 apart, do not end where a series of 25",
        ),
        (lambda: InterpretableAttention(6, 4, 2, 2), "6 features do not divide into 4 heads"),
        (lambda: MovingAverage(4), "a mean over 4 steps has no middle"),
        (lambda: AutoCorrelation(4, 2, 1.0), "1.0 times the logarithm of 2 steps are 0 delays"),
        (lambda: AutoCorrelation(4, 4, 4.0), "4.0 times the logarithm of 4 steps are 5 delays"),
        (
            lambda: Autoformer(time=8, horizon=4, channels=1, label=9),
            "a decoder cannot begin with 9 of 8 steps",
        ),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_series_of_another_length_is_refused(factory: Callable[[], Factory]) -> None:
    module, _ = factory()
    with pytest.raises(InputError, match="is made for series of 16, not of 17"):
        module(drawn(1, 17, 3))


def test_another_number_of_variables_is_refused() -> None:
    with pytest.raises(InputError, match="is made for variables of 3, not of 2"):
        VariableSelection(3, 4)(drawn(1, 5, 2))


@pytest.mark.parametrize("factory", [tiny_series.samformer, tiny_series.xpatch])
def test_another_number_of_series_is_refused_where_each_has_weights(
    factory: Callable[[], Factory],
) -> None:
    module, _ = factory()
    with pytest.raises(InputError, match="is made for series of 3, not of 2"):
        module(drawn(1, 16, 2))
