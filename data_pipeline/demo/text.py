"""What the demo's voices say: sentences written for it, rich in p b m f v, in five languages.

Commas are where pauses may be lengthened. A sentence's key is its language and first three words,
so changing one sentence leaves the keys, and with them the splits, of the others alone. Which keys
are kept out of training is `data_pipeline.splits`' rule.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence: `key` ("en-the-baby-babbled"), `language` (BCP-47) and `text`."""

    key: str
    language: str
    text: str


_ENGLISH = """
My brother bought five plump plums.
Please move the blue van behind the farm.
The baby babbled, bubbled, and fell fast asleep.
Mother mixed the milk with vanilla.
We found a funny puppy by the river.
Very few people saw the film before May.
Open the big map, and put your thumb on the bay.
Both boys brought warm bread from the village.
If I may, I would rather walk home.
Pam picked purple peppers for supper.
The chef chopped the chives, then she washed the cherries.
How now, who threw the yellow ball over there?
Eve leaves for Vienna at half past five.
Summer storms bring thunder, wind, and heavy rain.
Maybe the plumber can mend the pump tomorrow.
A brave old man may climb above the fog.
Show me the shop where you saw the shiny boots.
Bob's thumb was numb, but his grip was firm.
The wolf would not move, nor would the lamb.
Fifty farmers met to vote on the bridge.
I hope we both have enough time for breakfast.
Oh my, what a marvellous view of the valley!
Pour the soup, pass the pepper, and fetch me a spoon.
Whoever phoned before noon never gave a name.
The map shows a path above the pebble beach.
Mum makes muffins, and father brews the coffee.
Each evening, a bat flew over the empty barn.
Would you buy a new umbrella, or borrow mine?
The museum opens at four, if I remember rightly.
Proud bees hum above the bamboo.
Give me a minute, I am almost finished.
The weather was rough, but we survived.
Fresh foam floats past the wharf.
Jump over the puddle, and mind the mud.
A judge in the village heard the evidence.
Push the boat off, then pull on the rope.
Amber lamps blinked above the bar.
He laughed, she coughed, and everybody waved.
My nephew loves to hop, jump, and swim.
Do you believe that apes prefer apples?
Leave the bottle on the marble table by the window.
Two blue pigeons flew up from the chimney.
The pilot smiled, and the plane began to move.
Soft voices from the theatre filled the foyer.
Beyond the bay, a white ship was moving slowly.
Put some jam and butter on my bun, please.
Philip and Vivian moved to a farm in Bavaria.
They bathe the baby with warm water.
"""

_SPANISH = """
Mi primo Pablo vive en un pueblo bonito.
Por favor, abre la puerta y pasa.
La abuela prepara pan y sopa para el bebé.
Un buen amigo vale más que mil fortunas.
Mañana por la mañana, vamos a la playa.
El bombero subió al tejado y bajó un gato.
Me fumo las fiestas, pero bebo poco vino.
Hubo fuego en la fábrica, y nadie se movió.
Pepa compra uvas, peras y manzanas.
El viento mueve las hojas del olivo.
¿Puedes venir a mi boda el viernes?
Mamá me mima mucho, y papá también.
Bajo el puente pasa un río profundo.
La profesora explica el poema muy bien.
Felipe no fuma, ni bebe café por la noche.
Vivimos en febrero una nevada famosa.
El pobre lobo aúlla, mira la luna y se va.
Compré un abrigo verde, y una bufanda.
Tu hermano pequeño siempre viene tarde.
Nuestro barco blanco flota frente al faro.
Empieza la película, baja la voz.
Una paloma voló sobre la fuente.
El jefe llamó a la familia, pero nadie abrió.
Vimos a la bruja buena en el bosque.
"""

_GERMAN = """
Meine Mutter backt am Abend Apfelkuchen.
Bitte bring mir fünf Briefe vom Postamt.
Der Vater pfeift, und das Baby brummt.
Wir wohnen im Februar in einem warmen Haus.
Viele Vögel fliegen über den blauen Fluss.
Im Bahnhof wartet ein müder Mann auf den Bus.
Paul probiert Pflaumen, Pilze und Pfeffer.
Fahr bitte vorsichtig, bei Nebel sieht man wenig.
Am Morgen blühen die Blumen auf dem Balkon.
Der freche Affe schob den Eimer um.
Ob wir baden, bestimmt wie immer das Wetter.
Mein Freund verkauft alte Bücher und Lampen.
Schöne Schuhe passen zu meinem neuen Mantel.
Wer will, darf jetzt vom Brot probieren.
Bevor du abfährst, pumpe den Reifen auf.
Im Sommer schwimmen wir, im Winter frieren wir.
Opa braucht am Nachmittag seine Brille.
Das Pferd lief am Ufer auf und ab.
Ein Bäcker verbrachte die Nacht vor dem Ofen.
Komm mit, wir möchten am Montag nach Bern.
Der Film begann um fünf vor sieben.
Über dem Dorf liegt ein weißer Nebel.
Hoffentlich bleibt die Suppe noch warm.
Ich mag Möhren, aber am liebsten Bohnen.
"""

_FRENCH = """
Ma petite maman prépare une bonne soupe.
Vous venez avec moi, ou vous prenez le bus ?
Paul a vu un beau bateau blanc.
Il fait froid, fermez bien la fenêtre.
Mon frère parle peu, mais il mange beaucoup.
Le boulanger ouvre avant neuf heures.
Une femme vive et un vieux monsieur marchent au bord du fleuve.
Papa a perdu son parapluie, et il pleut.
Je bois un verre de vin blanc à midi.
Nous partons vers Bordeaux vendredi matin.
Le bébé tombe, puis il se remet debout.
Fabien vend des pommes et des framboises.
Peux-tu me prêter ton vélo demain ?
Au moment du départ, personne ne bouge.
Les enfants jouent, rient, et font du bruit.
Elle aime le cinéma, surtout les films de peur.
Ma voisine promène un chien brun.
Voilà un bon pain bien chaud.
Le loup a faim, le mouton a peur.
On improvise, on verra bien plus tard.
Bernard pose son livre sur la table basse.
Un feu brûle au fond du village.
Je voudrais un café, et un peu de beurre.
Philippe vient de finir son poème.
"""

_ITALIAN = """
Mia mamma prepara il pane ogni mattina.
Paolo beve un buon bicchiere di vino.
Per favore, vieni a vedere il film.
Il bambino piange, poi ride e batte le mani.
Una farfalla vola sopra il fiume profondo.
Abbiamo pochi amici, ma buoni.
Il povero lupo aveva fame e freddo.
Domani parto per Palermo con mio fratello.
Vorrei un piatto di pesce, e un po' di prezzemolo.
Le scimmie provano a prendere la palla.
Babbo apre la finestra, e fa entrare il vento.
Nove barche bianche vanno verso il faro.
Mi piace il profumo del basilico fresco.
Se piove, prendiamo l'ombrello blu.
Mio nonno viveva in un piccolo paese.
La professoressa ha finito il libro a febbraio.
Fuma meno, mangia bene e bevi acqua.
Ma dove vai, e quando pensi di tornare?
Un bravo medico ascolta prima di parlare.
Il gatto furbo si muove piano piano.
Compriamo uva, pomodori e formaggio.
Vuoi provare la mia bicicletta nuova?
Il tempo passa, e noi beviamo un altro caffè.
Ogni sabato balliamo in piazza fino a tardi.
"""


def _key(language: str, line: str) -> str:
    # Keys become file names: plain ASCII.
    plain = unicodedata.normalize("NFKD", line.lower()).encode("ascii", "ignore").decode()
    return "-".join([language, *re.findall(r"\w+", plain)[:3]])


def _sentences(language: str, block: str) -> tuple[Sentence, ...]:
    lines = [line.strip() for line in block.strip().splitlines()]
    return tuple(Sentence(_key(language, t), language, t) for t in lines)


SENTENCES: tuple[Sentence, ...] = (
    _sentences("en", _ENGLISH)
    + _sentences("es", _SPANISH)
    + _sentences("de", _GERMAN)
    + _sentences("fr", _FRENCH)
    + _sentences("it", _ITALIAN)
)
"""Every sentence; 48 English and 24 of each other language."""


def of_language(language: str) -> tuple[Sentence, ...]:
    """Returns the sentences of a language, in order; empty when there are none."""
    return tuple(s for s in SENTENCES if s.language == language)
