"""The model of runtime/MODEL.md in PyTorch, small enough to train on two cores. Parameters carry the published names (shared by state_dict and the converter).

In: batches as corpus.py makes them. Out: logits and, for training only, heads that are thrown away. Nothing here is used at run time; the runtime's own
mathematics is in runtime/, and tests/oracle checks that against implementations that are not ours. Versions: see README.md.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Named(nn.Module):
    """A folder in a parameter's name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


# ---- ViT (MODEL.md section 1) ------------------------------------------------------------------------------------------------------------------

def block_order(t, h, w):
    """Row-major patch numbers (t, h, w) in the order of the model: 2 x 2 blocks together."""
    return torch.arange(t * h * w).view(t, h // 2, 2, w // 2, 2).permute(0, 1, 3, 2, 4).reshape(-1)


def positions_matrix(side, h, w):
    """(h·w, side²): the bilinear interpolation of the learned positions as one matrix, rows in block order."""
    rows, cols = (torch.linspace(0, side - 1, n) for n in (h, w))
    matrix = torch.zeros(h, w, side * side)
    for i, r in enumerate(rows.tolist()):
        for j, c in enumerate(cols.tolist()):
            r0, c0 = int(r), int(c)
            r1, c1 = min(r0 + 1, side - 1), min(c0 + 1, side - 1)
            fr, fc = r - r0, c - c0
            for at, weight in ((r0 * side + c0, (1 - fr) * (1 - fc)), (r0 * side + c1, (1 - fr) * fc), (r1 * side + c0, fr * (1 - fc)), (r1 * side + c1, fr * fc)):
                matrix[i, j, at] += weight
    return matrix.view(h * w, -1)[block_order(1, h, w)]


def half_split(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def patches_of(frames):
    """(B, frames, H, W) grey in −1 … 1 → (B, P, 1536): channel, frame of the pair, row, column inside a patch; patches in block order."""
    b, f, height, width = frames.shape
    t, h, w = f // 2, height // 16, width // 16
    x = frames.view(b, t, 2, h // 2, 2, 16, w // 2, 2, 16).permute(0, 1, 3, 6, 4, 7, 2, 5, 8).reshape(b, t * h * w, 1, 512)
    return x.expand(-1, -1, 3, -1).reshape(b, t * h * w, 1536), (t, h, w)


class VitBlock(nn.Module):
    def __init__(self, width, ffn, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        self.mlp = Named(linear_fc1=nn.Linear(width, ffn), linear_fc2=nn.Linear(ffn, width))

    def forward(self, x, frames, cos, sin):
        b, p, d = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).view(b * frames, p // frames, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = half_split(q, cos, sin), half_split(k, cos, sin)
        x = x + self.attn.proj(F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).reshape(b, p, d))
        return x + self.mlp.linear_fc2(F.gelu(self.mlp.linear_fc1(self.norm2(x)), approximate="tanh"))


class Merger(nn.Module):
    def __init__(self, width, out, norm_after):
        super().__init__()
        self.norm_after = norm_after
        self.norm = nn.LayerNorm(4 * width if norm_after else width, eps=1e-6)
        self.linear_fc1, self.linear_fc2 = nn.Linear(4 * width, 4 * width), nn.Linear(4 * width, out)

    def forward(self, x):
        b, p, d = x.shape
        x = self.norm(x.reshape(b, p // 4, 4 * d)) if self.norm_after else self.norm(x).reshape(b, p // 4, 4 * d)
        return self.linear_fc2(F.gelu(self.linear_fc1(x)))


class Vit(nn.Module):
    def __init__(self, c, out):
        super().__init__()
        self.c, self.tables = c, {}
        self.patch_embed = Named(proj=nn.Conv3d(3, c["hidden_size"], (2, 16, 16), (2, 16, 16)))
        self.pos_embed = nn.Embedding(c["num_position_embeddings"], c["hidden_size"])
        self.blocks = nn.ModuleList(VitBlock(c["hidden_size"], c["intermediate_size"], c["num_heads"]) for _ in range(c["depth"]))
        self.merger = Merger(c["hidden_size"], out, False)
        self.deepstack_merger_list = nn.ModuleList(Merger(c["hidden_size"], out, True) for _ in c["deepstack_visual_indexes"])

    def table(self, h, w):
        if (h, w) not in self.tables:
            head = self.c["hidden_size"] // self.c["num_heads"]
            inverse = 1 / 10000 ** (torch.arange(0, head // 2, 2) / (head // 2))
            order = block_order(1, h, w)
            angle = torch.cat([(order // w)[:, None] * inverse, (order % w)[:, None] * inverse] * 2, -1)
            self.tables[h, w] = positions_matrix(int(self.c["num_position_embeddings"] ** 0.5), h, w), angle.cos(), angle.sin()
        return self.tables[h, w]

    def forward(self, frames):
        """(B, frames, H, W) → [(B, L, D)] of the top and every DeepStack level, (t, H/32, W/32)."""
        patches, (t, h, w) = patches_of(frames)
        interpolate, cos, sin = self.table(h, w)
        weight, bias = self.patch_embed.proj.weight, self.patch_embed.proj.bias
        x = F.linear(patches, weight.view(weight.shape[0], -1), bias).float() + (interpolate @ self.pos_embed.weight).repeat(t, 1)
        deep = []
        for i, block in enumerate(self.blocks):
            x = block(x, t, cos, sin)
            if i in self.c["deepstack_visual_indexes"]:
                deep.append(self.deepstack_merger_list[len(deep)](x))
        return [self.merger(x)] + deep, (t, h // 2, w // 2)


# ---- slide branch (section 2) ------------------------------------------------------------------------------------------------------------------

class SlideLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.self_attn = Named(**{name: nn.Linear(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def attention(self, x):
        """Segments of g' = min(g, N) rows, dilations 1, 2, 4; rows padded with zeros, which count as keys of score 0."""
        b, n, d = x.shape
        q, k, v = (p(x).float().view(b, n, self.heads, -1) for p in (self.self_attn.q_proj, self.self_attn.k_proj, self.self_attn.v_proj))
        outs, sums = [], []
        for segment, dilation in ((512, 1), (1024, 2), (2048, 4)):
            g = min(segment, n)
            rows = -(-g // dilation) * dilation                                    # of a padded segment
            segments = -(-n // g)
            out, total = torch.zeros_like(q), torch.full((b, n, self.heads), -1e8)
            for j in range(dilation):
                heads = slice(j * self.heads // dilation, (j + 1) * self.heads // dilation)

                def kept(z):                                                       # (B, segments, heads, rows/dilation, width)
                    z = F.pad(z[:, :, heads], (0, 0, 0, 0, 0, segments * g - n)).view(b, segments, g, -1, z.shape[-1])
                    return F.pad(z, (0, 0, 0, 0, 0, rows - g))[:, :, j::dilation].transpose(2, 3)

                qs, ks, vs = kept(q), kept(k), kept(v)
                score = qs @ ks.transpose(-1, -2) / math.sqrt(q.shape[-1])
                mixed, lse = score.softmax(-1) @ vs, score.logsumexp(-1)
                full, full_lse = torch.zeros(b, segments, rows, mixed.shape[2], q.shape[-1]), torch.full((b, segments, rows, mixed.shape[2]), -1e8)
                full[:, :, j::dilation], full_lse[:, :, j::dilation] = mixed.transpose(2, 3), lse.transpose(2, 3)
                out[:, :, heads] = full[:, :, :g].reshape(b, segments * g, -1, q.shape[-1])[:, :n]
                total[:, :, heads] = full_lse[:, :, :g].reshape(b, segments * g, -1)[:, :n]
            outs.append(out)
            sums.append(torch.where(total == 0, -1e8, total))
        weights = torch.stack(sums).softmax(0)
        return self.self_attn.out_proj(sum(w[..., None] * o for w, o in zip(weights, outs)).reshape(b, n, d))

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.ffn(self.ln2(x))


class Slide(nn.Module):
    def __init__(self, width, heads, layers, out):
        super().__init__()
        self.layers = nn.ModuleList(SlideLayer(width, heads) for _ in range(layers))
        self.feature_projector = nn.Linear(width, out)
        self.intermediate_projectors = nn.ModuleList(nn.Linear(width, out) for _ in range(layers))

    def forward(self, x):
        x, deep = x.bfloat16().float(), []
        for layer, project in zip(self.layers, self.intermediate_projectors):
            x = layer(x)
            deep.append(project(x))
        return [self.feature_projector(x)] + deep


# ---- token selection (section 3a) --------------------------------------------------------------------------------------------------------------

@torch.no_grad()
def coverage_select(features, k):
    """(B, L, D) → (B, k) kept rows, ascending. The greedy definition, sums in float64."""
    b, length, _ = features.shape
    if length <= k:
        return torch.arange(length).expand(b, -1)
    rows = features.float()
    rows = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    cover = ((rows @ rows.transpose(1, 2)) / 0.2).softmax(-1).double() / length
    best = torch.zeros(b, length, 1, dtype=torch.double)
    taken = torch.zeros(b, length, dtype=torch.bool)
    every = torch.arange(b)
    for _ in range(k):
        gain = (cover - best).clamp_min_(0).sum(1).masked_fill_(taken, -1)
        choice = gain.argmax(1)                                                    # lowest index on a tie
        taken[every, choice] = True
        best = torch.maximum(best, cover[every, :, choice][..., None])
    return taken.nonzero()[:, 1].view(b, k)


def keep(levels, k):
    """Every level by its own choice → [(B, k, D)], kept rows of the top level."""
    b, _, d = levels[0].shape
    chosen = coverage_select(torch.cat([level.detach().float() for level in levels]), k).view(len(levels), b, -1)
    return [level.gather(1, rows[..., None].expand(-1, -1, d)) for level, rows in zip(levels, chosen)], chosen[0]


# ---- decoder (section 4) -----------------------------------------------------------------------------------------------------------------------

class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads, self.kv, self.head = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        linear = lambda into, out: nn.Linear(into, out, bias=False)
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(width), RmsNorm(width)
        self.self_attn = Named(q_proj=linear(width, self.heads * self.head), k_proj=linear(width, self.kv * self.head), v_proj=linear(width, self.kv * self.head),
                               o_proj=linear(self.heads * self.head, width), q_norm=RmsNorm(self.head), k_norm=RmsNorm(self.head))
        ffn = c["intermediate_size"]
        self.mlp = Named(gate_proj=linear(width, ffn), up_proj=linear(width, ffn), down_proj=linear(ffn, width))

    def forward(self, h, cos, sin, mask):
        b, t, _ = h.shape
        x, a = self.input_layernorm(h), self.self_attn
        q, k, v = (p(x).view(b, t, -1, self.head).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        q, k = half_split(a.q_norm(q), cos, sin).to(v.dtype), half_split(a.k_norm(k), cos, sin).to(v.dtype)
        k, v = (z.repeat_interleave(self.heads // self.kv, 1) for z in (k, v))
        h = h + a.o_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, -1))
        x = self.post_attention_layernorm(h)
        return h + self.mlp.down_proj(F.silu(self.mlp.gate_proj(x)) * self.mlp.up_proj(x))


class Demo(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        text, width = config["text_config"], config["text_config"]["hidden_size"]
        decoder = Named(embed_tokens=nn.Embedding(text["vocab_size"], width), layers=nn.ModuleList(Layer(text) for _ in range(text["num_hidden_layers"])), norm=RmsNorm(width))
        self.model = Named(language_model=decoder, visual=Vit(config["vision_config"], width))
        self.slide = Slide(config["feature_dim"], config["long_net_heads"], config["long_net_layers"], width)
        section = text["rope_scaling"]["mrope_section"]
        self.axis = torch.zeros(text["head_dim"] // 2, dtype=torch.long)           # which of t, y, x turns each frequency
        self.axis[1:3 * section[1]:3], self.axis[2:3 * section[2]:3] = 1, 2
        self.frequency = text["rope_theta"] ** (-torch.arange(text["head_dim"] // 2) / (text["head_dim"] // 2))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02 if "embed" in name and "patch" not in name else p[0].numel() ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        for name, p in self.named_parameters():                                    # residual branches start small
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "linear_fc2.weight", "out_proj.weight", "ffn.2.weight")) and "merger" not in name:
                p.data *= 0.5

    def see(self, kind, data):
        """Media of one kind and size → ([(B, k, D)] per level, (B, k, 3) positions relative to the first token, features before selection)."""
        budget = self.config[{"image": "image_token_num", "volume": "video_token_num", "slide": "histo_token_num"}[kind]]
        if kind == "slide":
            levels, (rows, cols) = self.slide(data), (1, data.shape[1])
        else:
            levels, (_, rows, cols) = self.model.visual(data)
        kept, s = keep(levels, budget)
        return kept, torch.stack([s // (rows * cols), s % (rows * cols) // cols, s % cols], -1), levels[0]

    def forward(self, ids, positions, mask, at, kept, labelled):
        """ids (B, T), positions (B, T, 3), mask (B, 1, T, T), kept rows per level placed from column `at`, labelled (B, T) → logits of those cells."""
        decoder = self.model.language_model
        h = decoder.embed_tokens(ids)
        if kept is not None:
            end = at + kept[0].shape[1]
            h = torch.cat([h[:, :at], kept[0].to(h.dtype), h[:, end:]], 1)
        angle = positions.float()[:, :, self.axis] * self.frequency
        angle = torch.cat([angle, angle], -1)[:, None]
        cos, sin = angle.cos(), angle.sin()
        for i, layer in enumerate(decoder.layers):
            h = layer(h, cos, sin, mask)
            if kept is not None and i + 1 < len(kept):
                h = torch.cat([h[:, :at], h[:, at:end] + kept[i + 1].to(h.dtype), h[:, end:]], 1)
        return F.linear(decoder.norm(h[labelled]), decoder.embed_tokens.weight)
