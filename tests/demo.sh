#!/usr/bin/env bash
# make demo: the embedded demo model looks at an ultrasound, a slide and a volume that it never saw in training, and paints what it found.
set -eu
build=$1
model=weights_convert/demo/breastgpt-demo.gguf
cases=tests/golden/phantoms
out=$build/demo
mkdir -p "$out"
screening=@tools/templates/roles/screening.txt
diagnosis=@tools/templates/roles/diagnosis.txt
treatment=@tools/templates/roles/treatment.txt

# question, what the phantom was drawn with, the rest: what breastgpt ask is given.
ask() {
  echo "   > $1"
  printf '   '
  "$build/breastgpt" ask -m "$model" "${@:3}" "$1"
  echo "     (drawn: $2)"
}

echo
echo "The demo model was trained on drawn phantoms. It is a toy that shows the whole path, and it knows nothing about patients."
echo
"$build/breastgpt" verify "$model"

us=$cases/ultrasound/us-00040.png
echo
echo "1. An ultrasound, $us"
ask "Is there a mass?" "yes" --image "$us" --system "$screening"
ask "What is the margin of the mass: circumscribed, indistinct or spiculated?" "spiculated" --image "$us" --system "$diagnosis"
ask "Where is the mass?" "(269,188),(906,695)" --image "$us" --system "$screening" --draw "$out/ultrasound-box.png" --evidence "$out/ultrasound-evidence.png"
ask "Write a diagnostic report." "oval, hypoechoic, spiculated, 26 mm, parallel, no posterior change, BI-RADS 5" --image "$us" --system "$diagnosis"
echo "   Probabilities of given answers: negative, benign, malignant"
"$build/breastgpt" ask -m "$model" --image "$us" --system "$screening" --choices negative,benign,malignant "Is the ultrasound negative, benign or malignant?"

slide=$cases/pathology/pa-00002
echo
echo "2. A slide (patch features), $slide.safetensors"
ask "Describe the slide in one sentence." "70 % tumour, grade 3, lobular, few lymphocytes, necrosis" --slide "$slide.safetensors" --system "$treatment"
ask "Which therapy fits: endocrine, chemotherapy or neoadjuvant?" "chemotherapy" --slide "$slide.safetensors" --system "$treatment" --evidence "$out/slide-evidence.png" --thumbnail "$slide.png"

mri=$cases/mri/mr-00021.nii.gz
echo
echo "3. An MRI volume, $mri"
ask "Write a diagnostic report." "right, 56 mm, homogeneous enhancement, unifocal, BI-RADS 3" --volume "$mri" --system "$diagnosis"
ask "Where is the largest mass?" "(615,573,83),(906,833,750)" --volume "$mri" --system "$diagnosis" --draw "$out/mri-boxes.png" --draw-mask "$out/mri-mask.nii.gz" --evidence "$out/mri-evidence.png"

echo
echo "Pictures to look at, in $out:"
ls "$out"
echo
echo "Its scores on 1,071 held-out questions: weights_convert/demo/report.md, and again in 20 seconds:"
echo "   $build/breastgpt bench -m $model $cases/bench.jsonl -o bench-out"
echo "Any phantom of $cases will do (findings.csv says what each was drawn with), and any question of tools/templates:"
echo "   $build/breastgpt ask -m $model --image $cases/mammography/mg-00001.png \"Describe the mammogram.\""
