//! Random vectors, commits, queries and conditions.
//!
//! Vectors lie in clusters; many are equal, many are equally far, some point the same way. A key
//! and its fact mostly belong to the same cluster, so that conditions on the fact's group can lead
//! away from what is near.

use waferdb::clock::{Random, SeededRandom};
use waferdb::error::Result;
use waferdb::transaction::{Precondition, Transaction};

use super::vector_versions::*;

const CLUSTERS: usize = 6;

/// Seeded choices.
pub struct Dice(pub SeededRandom);

impl Dice {
    pub fn below(&self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// From -`most` to `most`.
    fn within(&self, most: f32) -> f32 {
        let steps = 1 << 16;
        most * (self.below(2 * steps + 1) as f32 / steps as f32 - 1.0)
    }
}

/// What the vectors of one structure look like.
struct Shape {
    centres: Vec<Vec<f32>>,
    /// Of each cluster, drawn again and again.
    common: Vec<Vec<Vector>>,
}

impl Shape {
    fn new(dice: &Dice, dim: usize) -> Self {
        let centre = |_| (0..dim).map(|_| dice.within(2.0)).collect();
        let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(centre).collect();
        let some = |centre: &Vec<f32>| (0..4).map(|_| nearby(dice, centre)).collect();
        let common = centres.iter().map(some).collect();
        Self { centres, common }
    }

    fn draw(&self, dice: &Dice, cluster: usize) -> Vector {
        let centre = &self.centres[cluster];
        match dice.below(20) {
            0..6 => dice.pick(&self.common[cluster]).clone(),
            6..9 => {
                // On a grid, where many are equally far.
                let snapped = centre.iter().map(|one| (one * 2.0 + dice.within(0.6)).round() / 2.0);
                sound(snapped.collect())
            }
            9 | 10 => {
                let scale = *dice.pick(&[0.5, 2.0, 3.0]);
                let common = dice.pick(&self.common[cluster]);
                sound(common.iter().map(|one| one * scale).collect())
            }
            11 => sound(centre.iter().map(|_| dice.within(2.5)).collect()),
            _ => nearby(dice, centre),
        }
    }
}

fn nearby(dice: &Dice, centre: &[f32]) -> Vector {
    sound(centre.iter().map(|one| one + dice.within(0.2)).collect())
}

/// Cosine knows no zero.
fn sound(mut vector: Vec<f32>) -> Vector {
    if vector.iter().all(|one| one.abs() < 0.01) {
        vector[0] = 1.0;
    }
    vector.into()
}

/// The keys of a run and what its vectors look like.
pub struct Pools {
    pub keys: Vec<String>,
    pub dims: [usize; VECTORS.len()],
    shapes: Vec<Shape>,
}

impl Pools {
    pub fn new(dice: &Dice) -> Self {
        let dims = [(); VECTORS.len()].map(|()| 3 + dice.below(6));
        let keys = (0..50 + dice.below(150)).map(|number| format!("k{number}")).collect();
        Self { keys, dims, shapes: dims.iter().map(|dim| Shape::new(dice, *dim)).collect() }
    }

    pub fn vector(&self, dice: &Dice, id: u32, cluster: usize) -> Vector {
        self.shapes[(id - COSINE) as usize].draw(dice, cluster)
    }

    /// What a key holds, which mostly lies in the key's own cluster.
    fn vector_of(&self, dice: &Dice, id: u32, number: usize) -> Vector {
        let own = number % CLUSTERS;
        self.vector(dice, id, if dice.chance(85) { own } else { dice.below(CLUSTERS) })
    }
}

pub struct Draw<'a> {
    pub dice: &'a Dice,
    pub pools: &'a Pools,
    pub model: &'a Model,
}

impl Draw<'_> {
    /// Operations that can stand in one commit.
    pub fn commit(&self) -> Vec<Op> {
        let ops = match self.dice.below(10) {
            0..3 => self.many(),
            3 => (0..10 + self.dice.below(30)).map(|_| self.operation()).collect(),
            _ => (0..1 + self.dice.below(6)).map(|_| self.operation()).collect(),
        };
        self.linked(ops)
    }

    /// Some keys are forgotten, one of them perhaps just written.
    pub fn forget(&self) -> Vec<Op> {
        let (number, key) = self.key();
        let mut ops = vec![Op::PutFact(key.clone(), self.fact(number))];
        match self.dice.below(4) {
            0 => ops.push(Op::ForgetFact(key)),
            1 => {
                let id = *self.dice.pick(&VECTORS);
                ops.push(Op::Put(id, key.clone(), self.pools.vector_of(self.dice, id, number)));
                ops.push(Op::Forget(id, key));
            }
            _ => {}
        }
        for _ in 0..1 + self.dice.below(4) {
            let (_, key) = self.key();
            ops.push(match self.dice.below(3) {
                0 => Op::ForgetFact(key),
                _ => Op::Forget(*self.dice.pick(&VECTORS), key),
            });
        }
        self.linked(ops)
    }

    /// Many vectors at once, with their rows where they need them.
    fn many(&self) -> Vec<Op> {
        let id = *self.dice.pick(&VECTORS);
        let count = 8 + self.dice.below(60);
        let first = self.dice.below(self.pools.keys.len());
        let mut ops = Vec::new();
        for number in (first..first + count).map(|number| number % self.pools.keys.len()) {
            let key = &self.pools.keys[number];
            if id == L2 {
                ops.push(Op::PutFact(key.clone(), self.fact(number)));
            }
            ops.push(Op::Put(id, key.clone(), self.pools.vector_of(self.dice, id, number)));
        }
        ops
    }

    /// Leaves out vectors whose row is not there at the end.
    fn linked(&self, mut ops: Vec<Op>) -> Vec<Op> {
        let all = ops.clone();
        ops.retain(|op| match op {
            Op::Put(L2, key, _) => self.model.is_linked_after(&all, key),
            _ => true,
        });
        if ops.is_empty() {
            let (number, key) = self.key();
            ops.push(Op::PutFact(key, self.fact(number)));
        }
        ops
    }

    fn operation(&self) -> Op {
        let (number, key) = self.key();
        let id = *self.dice.pick(&VECTORS);
        match self.dice.below(20) {
            0..5 => Op::PutFact(key, self.fact(number)),
            5..7 => Op::DeleteFact(key),
            7..11 => Op::Delete(id, key),
            _ => Op::Put(id, key, self.pools.vector_of(self.dice, id, number)),
        }
    }

    /// One key of a structure that has a vector now goes, or gets another.
    pub fn gone(&self, id: u32, key: &str) -> Op {
        let key = key.to_owned();
        let cluster = self.dice.below(CLUSTERS);
        match self.dice.below(10) {
            0..3 if id == L2 => Op::DeleteFact(key),
            3 if id == L2 => Op::ForgetFact(key),
            4 => Op::Forget(id, key),
            5..8 => Op::Put(id, key, self.pools.vector(self.dice, id, cluster)),
            _ => Op::Delete(id, key),
        }
    }

    fn key(&self) -> (usize, String) {
        let number = self.dice.below(self.pools.keys.len());
        (number, self.pools.keys[number].clone())
    }

    fn fact(&self, number: usize) -> Fact {
        let own = self.dice.chance(85);
        let group = if own { number % CLUSTERS } else { self.dice.below(CLUSTERS) };
        Fact { group: group as u8, n: self.dice.below(40) as i64 - 20 }
    }

    /// Where something lies, or once lay, or anywhere.
    pub fn query(&self, id: u32) -> Vector {
        let known = self.model.vectors(id).values();
        match self.dice.below(10) {
            0..4 if !known.is_empty() => (*self.dice.pick(&known)).clone(),
            _ => self.pools.vector(self.dice, id, self.dice.below(CLUSTERS)),
        }
    }

    pub fn conditions(&self) -> Conditions {
        let group = || self.dice.below(CLUSTERS) as u8;
        let groups = match self.dice.below(10) {
            0..5 => vec![group()],
            5..7 => vec![group(), group()],
            // None has this one.
            7 => vec![CLUSTERS as u8],
            _ => Vec::new(),
        };
        let low = self.dice.below(40) as i64 - 20;
        let range = self.dice.chance(40).then(|| (low, low + self.dice.below(30) as i64));
        Conditions { groups, range }
    }
}

/// Operations as a trace shows them.
pub fn told(ops: &[Op]) -> String {
    let one = |op: &Op| match op {
        Op::Put(id, key, vector) => format!("Put({id}, {key:?}, {vector:?})"),
        other => format!("{other:?}"),
    };
    let shown: Vec<String> = ops.iter().take(4).map(one).collect();
    format!("{} ({} ops)", shown.join(" · "), ops.len())
}

pub fn write(tx: &mut Transaction, op: &Op) -> Result<()> {
    match op {
        Op::PutFact(key, fact) => {
            tx.put(FACTS, key.as_bytes(), &fact.encode(), Precondition::default())
        }
        Op::DeleteFact(key) => tx.delete(FACTS, key.as_bytes()),
        Op::ForgetFact(key) => tx.forget(FACTS, &[key.as_bytes()]),
        Op::Put(id, key, vector) => tx.put_vector(*id, key, vector),
        Op::Delete(id, key) => tx.delete(*id, key.as_bytes()),
        Op::Forget(id, key) => tx.forget(*id, &[key.as_bytes()]),
    }
}
