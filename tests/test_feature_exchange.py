"""Stage maps that a teacher and a student exchange while both learn (`feature_exchange`): the laws of methods.md 2.14, layer by layer."""

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from students.data.shared import SharedData
from students.fitting.fit import cohort_of
from students.runs.session import PlainSession
from teachers.models.folder import load_model
from tests.cohort_runs import cohort_config, in_turn, make_cohort

SESSION = PlainSession()
MEMBERS = {
    "large": {"model": "teachers.zoo:conv_net", "arguments": {"width": 6}, "layers": ["stages.1", "stages.2"]},
    "small": {"model": "students.models:small_conv_net", "arguments": {"width": 3}, "layers": ["1", "3"]},
}
OBJECTIVE = [{"loss": "hard", "weight": 1.0}, {"loss": "feature", "weight": 0.5}]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def heard(digits, tmp_path):
    """A pair in its first step: (cohort, what each said, the loss of each)."""
    config = cohort_config("feature_exchange", MEMBERS, objective=OBJECTIVE)
    cohort = cohort_of(make_cohort(tmp_path, digits, config), SESSION, SharedData())
    batches = next(iter(cohort.batches()))
    pairs = [*zip(cohort.trainings, batches, strict=True)]
    works = [training.stepper.begin(batch, 0) for training, batch in pairs]
    said = [cohort.say(training, work, True, 0) for (training, _), work in zip(pairs, works, strict=True)]
    everyone = cohort.exchange(said)
    losses = []
    for training, work, own in zip(cohort.trainings, works, said, strict=True):
        of_peers = cohort.hear(training, torch.zeros(32, dtype=torch.int64), everyone, own)
        losses.append(training.stepper.loss(work, 0, own[0], of_peers))
    return cohort, works, said, losses


def test_a_members_loss_moves_nothing_of_the_other_through_the_map_that_it_follows(heard):
    cohort, _, _, losses = heard
    for i, j in ((0, 1), (1, 0)):
        theirs = [*cohort.trainings[j].stepper.whole.parameters()]
        gradients = torch.autograd.grad(losses[i], theirs, allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in gradients)


def test_its_projectors_learn_with_it_and_so_do_all_stages_up_to_the_last_map(heard):
    cohort, _, _, losses = heard
    for training, loss in zip(cohort.trainings, losses, strict=True):
        projectors = training.stepper.whole.projectors
        assert len(projectors) == 2  # a layer and peer each
        gradients = torch.autograd.grad(loss, [*projectors.parameters()], retain_graph=True)
        assert all(gradient.abs().max() > 0 for gradient in gradients)
        held = {id(each) for group in training.stepper.optimizer.param_groups for each in group["params"]}
        assert {id(each) for each in projectors.parameters()} <= held


def test_the_term_is_the_mean_over_layers_and_peers_of_the_mean_square_between_maps(heard):
    cohort, works, said, _ = heard
    for i, j in ((0, 1), (1, 0)):
        stepper = cohort.trainings[i].stepper
        own, theirs = said[i][1:], said[j][1:]
        expected = torch.stack(
            [
                F.mse_loss(stepper.whole.projectors[f"{layer}_{j}"](mine), his.detach())
                for layer, (mine, his) in enumerate(zip(own, theirs, strict=True))
            ]
        ).mean()
        torch.testing.assert_close(works[i].terms[-1][1], expected.detach())


def test_maps_of_another_size_are_compared_at_the_smaller_one(digits, tmp_path):
    members = {**MEMBERS, "large": {**MEMBERS["large"], "layers": ["stages.0", "stages.1"]}}
    config = cohort_config("feature_exchange", members, objective=OBJECTIVE, train={"steps": 3})
    assert len(in_turn(make_cohort(tmp_path, digits, config))) == 2


def test_projectors_are_not_delivered(digits, tmp_path):
    config = cohort_config("feature_exchange", MEMBERS, objective=OBJECTIVE, train={"steps": 3})
    run = make_cohort(tmp_path, digits, config)
    in_turn(run)
    for member in run.members:
        kept = safetensors.torch.load_file(member.folder / "model.safetensors")
        assert {*kept} == {*load_model(member.folder).module.state_dict()}
        assert not [name for name in kept if "projector" in name]


def test_the_shipped_recipe_lets_a_large_and_a_small_network_exchange_as_many_layers():
    recipe = load_recipe(find("exchange"))
    (cohort,) = recipe.cohorts.values()
    assert cohort.method == "feature_exchange" and cohort.deliver == "small"
    assert {len(member.layers) for member in cohort.members.values()} == {2}
