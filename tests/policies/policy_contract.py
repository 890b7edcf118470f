"""What every policy must do, as tests to inherit.

    class TestMine(PolicyContract):
        @pytest.fixture
        def policy(self, small_data):
            return MyPolicy(...)

What a kind of policy does not promise, its class says by the attributes below.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from palate.data.contexts import Context, History
from palate.data.prepared import Prepared
from palate.errors import DataError
from palate.negatives import mixture
from palate.objectives import CandidateScores, s_dpo
from palate.policies import PADDING_ITEM, load_policy
from palate.policies.reference import REFERENCES
from palate.training.noise import silence
from palate.training.preference_sets import PreferenceSets, collate_sets

close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-5)


class PolicyContract:
    """Tests of a fixture `policy` over the items of `small_data`."""

    sums_to_one = True
    """Whether the probabilities of the items of the catalogue sum to 1."""
    learns_as_it_scores = True
    """Whether imitation of a history reads each moment exactly as scoring it does."""

    @pytest.fixture
    def contexts(self, small_data: Prepared) -> list[Context]:
        return small_data.contexts("test")[:4]

    def test_scores_are_one_number_per_candidate(self, policy, contexts):
        scored = policy.score(contexts, np.array([[0, 3, 7]] * 4))
        assert scored.log_probs.shape == (4, 3)
        assert scored.log_probs.dtype == torch.float32
        assert not scored.log_probs.requires_grad
        assert (scored.log_probs < 0).all()
        assert scored.log_probs.isfinite().all()
        assert scored.lengths is None or scored.lengths.shape == (4, 3)

    def test_absent_candidates_score_zero_and_change_nothing(self, policy, contexts):
        ids = np.array([[5, 1], [2, 8], [3, 3], [9, 0]])
        padded = np.insert(ids, 1, PADDING_ITEM, axis=1)
        padded[0, 2] = PADDING_ITEM
        scored = policy.score(contexts, padded).log_probs
        assert (scored[:, 1] == 0).all()
        assert scored[0, 2] == 0
        alone = policy.score(contexts, ids).log_probs
        close(scored[:, 0], alone[:, 0])
        close(scored[1:, 2], alone[1:, 1])

    def test_no_candidate_at_all_scores_zero(self, policy, contexts):
        absent = np.full((2, 3), PADDING_ITEM)
        assert (policy.score(contexts[:2], absent).log_probs == 0).all()

    def test_a_context_scores_alike_in_any_company(self, policy, contexts):
        ids = np.array([[5, 1, 2]] * 4)
        together = policy.score(contexts, ids).log_probs
        for row, context in enumerate(contexts):
            close(together[row : row + 1], policy.score([context], ids[:1]).log_probs)

    def test_order_of_candidates_does_not_matter(self, policy, contexts):
        ids = np.array([[5, 1, 2]] * 4)
        close(
            policy.score(contexts, ids).log_probs.flip(1),
            policy.score(contexts, ids[:, ::-1].copy()).log_probs,
        )

    def test_the_history_counts(self, policy, contexts):
        ids = np.array([[5, 1, 2]])
        one, other = contexts[0], replace(contexts[0], history=np.array([30, 31, 32]))
        assert not torch.allclose(
            policy.score([one], ids).log_probs, policy.score([other], ids).log_probs
        )

    def test_the_catalogue_is_scored_as_candidates_are(self, policy, contexts, small_data):
        everything = policy.catalogue_log_probs(contexts)
        assert everything.shape == (4, small_data.n_items)
        pool = np.array([7, 2, 11])
        scored = policy.score(contexts, np.tile(pool, (4, 1))).log_probs
        close(everything[:, pool], scored)
        close(policy.catalogue_log_probs(contexts, pool), scored)
        total = everything.exp().sum(dim=1)
        if self.sums_to_one:
            close(total, torch.ones(4))
        assert (total < 1 + 1e-4).all()

    def test_collated_and_run_it_is_the_score(self, policy, contexts):
        ids = np.array([[5, 1, PADDING_ITEM]] * 4)
        policy.model.eval()
        scored = policy.log_probs(policy.collate(contexts, ids))
        close(scored.log_probs.detach(), policy.score(contexts, ids).log_probs)

    def test_scoring_leaves_the_mode_as_it_was(self, policy, contexts):
        for mode in (True, False):
            policy.model.train(mode)
            policy.score(contexts, np.array([[1, 2]] * 4))
            policy.catalogue_log_probs(contexts)
            assert policy.model.training is mode

    def test_a_gradient_reaches_the_weights(self, policy, contexts):
        ids = np.array([[5, 1], [2, 8], [3, 4], [9, 0]])
        policy.start_stage("align")
        policy.model.eval()
        before = policy.score(contexts, ids).log_probs[:, 0].mean()
        trained = [weights for weights in policy.model.parameters() if weights.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=1e-3)
        policy.log_probs(policy.collate(contexts, ids)).log_probs[:, 0].mean().neg().backward()
        assert all(w.grad is None or w.grad.isfinite().all() for w in trained)
        optimiser.step()
        assert policy.score(contexts, ids).log_probs[:, 0].mean() > before

    def test_a_ranking_leaves_the_history_out(self, policy, contexts, small_data):
        ranking = policy.rank(contexts, top=small_data.n_items)
        everything = policy.catalogue_log_probs(contexts)
        for row, context in enumerate(contexts):
            shown = np.isfinite(ranking.scores[row])
            ids, scores = ranking.item_ids[row][shown], ranking.scores[row][shown]
            assert set(ids) == set(range(small_data.n_items)) - set(context.history)
            assert (np.diff(scores) <= 0).all()
            close(torch.from_numpy(scores), everything[row, ids].float())
        assert policy.rank(contexts, top=3).item_ids.shape == (4, 3)

    def test_an_unknown_item_is_refused(self, policy, contexts, small_data):
        for outside in (small_data.n_items, PADDING_ITEM - 1):
            with pytest.raises(DataError, match=f"item id {outside} is not in the catalogue"):
                policy.score(contexts, np.array([[0, outside]] * 4))

    def test_saved_and_loaded_it_scores_the_same(self, policy, contexts, tmp_path):
        policy.save(tmp_path)
        loaded = load_policy(tmp_path)
        close(loaded.catalogue_log_probs(contexts), policy.catalogue_log_probs(contexts))
        assert loaded.items.equals(policy.items)
        assert loaded.max_history == policy.max_history

    def test_histories_are_learnt_item_by_item(self, policy):
        items = np.array([4, 9, 2, 7, 1])
        histories = [History(items, 1), History(items[:3], 2)]
        windows = [one for history in histories for one in policy.history_windows(history)]
        policy.model.eval()
        batch = policy.collate_histories(windows)
        losses = policy.history_losses(batch)
        assert losses.requires_grad
        assert batch["targets"] == len(losses) == 5
        if self.learns_as_it_scores:
            none = np.empty(0, np.int64)
            places = [1, 2, 3, 4, 2]
            asked = [Context(items[:place], none, none) for place in places]
            close(losses.detach(), -policy.score(asked, items[places, None]).log_probs[:, 0])

    @pytest.mark.parametrize("reference", ["frozen", "cached"])
    def test_a_reference_stays_while_the_policy_moves(self, policy, small_data, reference):
        policy.start_stage("align")
        silence(policy.model)
        sets = PreferenceSets(
            small_data.contexts("train"), mixture({"uniform": 3}, small_data), 0, policy
        )
        batch, later = (
            collate_sets(policy, [sets[epoch, i] for i in range(3)]) for epoch in (0, 1)
        )
        policy.model.eval()
        held = REFERENCES[reference](policy)
        before, of_later = (policy.log_probs(one).log_probs.detach() for one in (batch, later))
        trained = [weights for weights in policy.model.parameters() if weights.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=0.1)
        for _ in range(2):
            scored = policy.log_probs(batch)
            scores = CandidateScores(
                scored.log_probs, held.log_probs(batch), levels=batch["levels"]
            )
            optimiser.zero_grad()
            s_dpo(scores, beta=1.0).mean().backward()
            optimiser.step()
        assert not torch.allclose(policy.log_probs(batch).log_probs, before)
        for one, expected in ((batch, before), (later, of_later)):
            close(held.log_probs(one), expected)
